/**
 * Features that the package cannot provide, with the reasons. The server logs them, and
 * docs/FUSE-NATIVE.md lists them. test/differential/tolerated.ts lists those that the differential
 * tests can see.
 */

/** On one line, for the log. */
export const LIMITS =
  'owners of new files are those of the server (no caller is told); ACLs are neither shown nor enforced; ' +
  'times in milliseconds, none before 1970, and never only one of two; names in UTF-8 only; no rename flags, ' +
  'O_TMPFILE, fallocate, SEEK_DATA, copy_file_range, inode flags; hard links are not one file to the page cache'

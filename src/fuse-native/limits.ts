/**
 * What can't be had through the package, each with its reason. It is said when the transport is
 * chosen, and listed in SEMANTICS.md; test/differential/tolerated.ts has what of it is to be seen
 * there.
 */

/** In one line, for the log. */
export const LIMITS =
  'owners of new files are those of the server (no caller is told); ACLs are neither shown nor enforced; ' +
  'times in milliseconds, none before 1970, and never only one of two; names in UTF-8 only; no rename flags, ' +
  'O_TMPFILE, fallocate, SEEK_DATA, copy_file_range, inode flags; hard links are not one file to the page cache'

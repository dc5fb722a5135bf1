/**
 * Known faults that are accepted, with their reasons. A known fault that does not occur any more is
 * an error in this list.
 */

import type { Fault } from './run.js'
import { usesUserXattrs } from './scenario.js'

interface Known {
  reason: string
  is: (fault: Fault) => boolean
}

export const KNOWN: readonly Known[] = [
  {
    reason:
      'In a directory with list but no search permission a device can not be checked for being a whiteout. It is listed, as the kernel does (ovl_cache_update).',
    is: ({ error, where }) =>
      error === 'EACCES' && where.startsWith('isHidden overlay/namei/readdir-merge'),
  },
  {
    reason:
      'A write removes set-id bits, and with xattr_permissions a capability, before it changes data. A failed write may have removed them; a successful one always has (kernel: file_remove_privs).',
    is: ({ scenario, wrong }) =>
      /^write (that drops set-id bits|f\.cap)$/.test(scenario) &&
      wrong.every(line =>
        /: (f: mode: 104755 -> 100755|f\.cap: xattrs: |f(\.cap)?: (content|mtime): )/.test(line),
      ),
  },
  {
    reason:
      'A file that is copied up for a truncation appears empty (kernel: ovl_open of O_TRUNC), and its set-id bits are removed after that. A server that is killed in between leaves an empty file with its set-id bits.',
    is: ({ scenario, error, wrong }) =>
      /^(truncate f to 0|open f with O_TRUNC|truncate that drops set-id bits)$/.test(scenario) &&
      error === null &&
      wrong.every(line => /: f: (size: |content: |mode: 100755 -> 104755)/.test(line)),
  },
  {
    reason:
      'A late page write removes the capability, which is then restored. A server that is killed in between leaves the file without it: the file has fewer rights, not more.',
    is: ({ scenario, error, wrong }) =>
      scenario === 'late write to a capable file' &&
      error === null &&
      wrong.every(line => /: f\.cap: (xattrs: security\.capability=\w* -> $|content: )/.test(line)),
  },
  {
    reason:
      'If a mount can not repair an unfinished operation of a killed server, it logs a warning and leaves it for the next mount.',
    is: ({ where, wrong }) =>
      /replayRecord overlay\/owner\/owner-access-records|finishMove overlay\/copy-up\/recover/.test(
        where,
      ) && wrong.every(line => line.startsWith('otherwise than after a remount')),
  },
  {
    reason:
      'A file system that refuses the query of its UUID or of file handles (EACCES) is treated as one without them, in every mount.',
    is: ({ error, where }) =>
      error === 'EACCES' && where.startsWith('createLayer overlay/open-union'),
  },
  {
    reason:
      'Only root of the initial user namespace can open a lower file by its handle. While a hard-linked file is copied up, its link count is stored relative to the lower file. A server that is killed then leaves it with the link count of the upper file.',
    is: ({ mode, error, wrong }) =>
      usesUserXattrs(mode) &&
      error === null &&
      wrong.some(line => /^not as before: .*: nlink: \d -> 1$/.test(line)) &&
      wrong.every(line => /^not as (after: |before: .*: nlink: \d -> 1$)/.test(line)),
  },
  {
    reason:
      'With xattr_permissions a change of the owner first removes a capability, so a failed change may have removed it (kernel: notify_change does so before it calls the file system).',
    is: ({ scenario, wrong }) =>
      scenario === 'chown f.cap' && wrong.every(line => /: f\.cap: (uid|gid|xattrs): /.test(line)),
  },
  {
    reason:
      'With xattr_permissions an ACL and its mode are two xattrs. A server that is killed in between leaves the new ACL with the old mode, which grants no more than the old or the new state.',
    is: ({ error, where }) => error === null && where.includes('setAcl overlay/file/xattr'),
  },
]

export const isKnown = (fault: Fault): boolean => KNOWN.some(({ is }) => is(fault))

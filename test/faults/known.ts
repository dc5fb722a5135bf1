/**
 * Faults that are known and stay, each with its reason. One that is met no more is a fault of this
 * list.
 */

import type { Fault } from './run.js'
import { isUsers } from './scenario.js'

interface Known {
  reason: string
  is: (fault: Fault) => boolean
}

export const KNOWN: readonly Known[] = [
  {
    reason:
      'A device in a directory that may be listed but not searched: nobody can tell whether it is a whiteout. It is listed, as by the kernel (ovl_cache_update).',
    is: ({ error, where }) =>
      error === 'EACCES' && where.startsWith('isHidden overlay/namei/readdir-merge'),
  },
  {
    reason:
      'A write takes set-id bits, and with xattr_permissions a capability, before it changes data: one that fails may have taken them, none that succeeds leaves them (kernel: file_remove_privs).',
    is: ({ scenario, wrong }) =>
      /^write (that drops set-id bits|f\.cap)$/.test(scenario) &&
      wrong.every(line =>
        /: (f: mode: 104755 -> 100755|f\.cap: xattrs: |f(\.cap)?: (content|mtime): )/.test(line),
      ),
  },
  {
    reason:
      'A file that is copied up to be cut appears empty (kernel: ovl_open of O_TRUNC); what the cut takes besides the data goes then. A server that is killed in between leaves an empty file with its set-id bits.',
    is: ({ scenario, error, wrong }) =>
      /^(truncate f to 0|open f with O_TRUNC|truncate that drops set-id bits)$/.test(scenario) &&
      error === null &&
      wrong.every(line => /: f: (size: |content: |mode: 100755 -> 104755)/.test(line)),
  },
  {
    reason:
      'A late page takes the capability, which is then given back: a server that is killed in between leaves the file without. It may do less, not more.',
    is: ({ scenario, error, wrong }) =>
      scenario === 'late write to a capable file' &&
      error === null &&
      wrong.every(line => /: f\.cap: (xattrs: security\.capability=\w* -> $|content: )/.test(line)),
  },
  {
    reason:
      'What a killed server has left half done, and a mount can not put right, is told (a warning) and stays for the next mount.',
    is: ({ where, wrong }) =>
      /replayRecord overlay\/owner\/owner-access-records|finishMove overlay\/copy-up\/recover/.test(
        where,
      ) && wrong.every(line => line.startsWith('otherwise than after a remount')),
  },
  {
    reason:
      'A file system that does not let itself be asked for its UUID or for handles (EACCES) counts as one without: that is so for each mount, not for one.',
    is: ({ error, where }) =>
      error === 'EACCES' && where.startsWith('makeLayer overlay/open-union'),
  },
  {
    reason:
      'Only root of the whole system finds a lower file by its handle. While a hard-linked file is copied up its count is relative to the lower one: a server that is killed then leaves it with the count of the upper one.',
    is: ({ mode, error, wrong }) =>
      isUsers(mode) &&
      error === null &&
      wrong.some(line => /^not as before: .*: nlink: \d -> 1$/.test(line)) &&
      wrong.every(line => /^not as (after: |before: .*: nlink: \d -> 1$)/.test(line)),
  },
  {
    reason:
      'With xattr_permissions a change of the owner takes a capability first: one that fails may have taken it (kernel: notify_change does so before the file system is asked).',
    is: ({ scenario, wrong }) =>
      scenario === 'chown f.cap' && wrong.every(line => /: f\.cap: (uid|gid|xattrs): /.test(line)),
  },
  {
    reason:
      'With xattr_permissions an ACL and the mode that belongs to it are two attributes. A server that is killed in between leaves the new ACL with the old mode: nobody has more than by either.',
    is: ({ error, where }) => error === null && where.includes('setAcl overlay/file/xattr'),
  },
]

export const isKnown = (fault: Fault): boolean => KNOWN.some(({ is }) => is(fault))

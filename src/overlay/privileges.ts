/** Set-id bits, and who may keep them on a file that is changed. */

import { readFileSync } from 'node:fs'
import { S_IFDIR, S_IFMT, S_ISGID, S_ISUID, S_IXGRP } from '../sys/constants.js'
import type { Caller } from './ops.js'

/**
 * The mode that is left after a write, truncation or chown by `caller` (kernel:
 * setattr_should_drop_suidgid). Without the group's execute bit, set-group-id stays for members of the
 * group.
 *
 * @param gid the file's group as it is shown
 */
export function privilegesLeft(mode: number, gid: number, caller: Caller): number {
  if ((mode & S_IFMT) === S_IFDIR) return mode
  const kept = mode & ~S_ISUID
  if ((mode & S_ISGID) === 0) return kept
  if ((mode & S_IXGRP) === 0 && isMember(caller, gid)) return kept
  return kept & ~S_ISGID
}

/** Whether the caller is in the group, or may act as if (kernel: in_group_or_capable). A request names only one of its groups. */
export function isMember(caller: Caller, gid: number): boolean {
  if (caller.uid === 0 || caller.gid === gid) return true
  try {
    const status = readFileSync(`/proc/${caller.pid}/status`, 'latin1')
    const groups = /^Groups:\s*(.*)$/m.exec(status)?.[1] ?? ''
    return groups.split(' ').includes(String(gid))
  } catch {
    // It is gone, or in another pid namespace: no one to keep the bit for.
    return false
  }
}

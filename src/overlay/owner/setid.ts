/**
 * Set-id bits: who may keep them on a file that is changed, and who may take them away. A request
 * names the caller's thread, and one user and one group of its own; the rest, capabilities above
 * all, is in /proc. That is read only where it decides something: the thread waits for its answer
 * meanwhile, so that it is still there.
 */

import { readFileSync } from 'node:fs'
import {
  CAP_FOWNER,
  CAP_FSETID,
  S_IFDIR,
  S_IFMT,
  S_ISGID,
  S_ISUID,
  S_IXGRP,
} from '../../sys/constants.js'
import { schedYield } from '../../sys/proc.js'
import type { Caller } from '../ops.js'

/**
 * The mode that is left after a write, truncation or chown by `caller` (kernel:
 * setattr_should_drop_suidgid). Without the group's execute bit, set-group-id stays for members of
 * the group.
 *
 * @param uid the file's owner as it is shown
 * @param gid the file's group as it is shown
 */
export function modeWithoutSetid(mode: number, uid: number, gid: number, caller: Caller): number {
  if ((mode & S_IFMT) === S_IFDIR) return mode
  const kept = mode & ~S_ISUID
  if ((mode & S_ISGID) === 0) return kept
  if ((mode & S_IXGRP) === 0 && isMember(caller, uid, gid)) return kept
  return kept & ~S_ISGID
}

/**
 * Whether the caller is in the file's group, or may act as if (kernel: in_group_or_capable).
 *
 * @param uid the file's owner as it is shown
 * @param gid the file's group as it is shown
 */
export function isMember(caller: Caller, uid: number, gid: number): boolean {
  if (caller.gid === gid) return true
  const status = readProc(caller, 'status')
  // It is gone, or in another pid namespace: no one to keep the bit for, unless it is root.
  if (status === '') return caller.uid === 0
  const groups = /^Groups:\s*(.*)$/m.exec(status)?.[1] ?? ''
  if (groups.split(' ').includes(String(gid))) return true
  return hasEffective(status, CAP_FSETID) && ownerIsMapped(caller, uid, gid)
}

/**
 * Whether the caller may change the file's mode (kernel: inode_owner_or_capable).
 *
 * @param uid the file's owner as it is shown
 */
export function mayChangeMode(caller: Caller, uid: number): boolean {
  return caller.uid === uid || isCapableOver(caller, CAP_FOWNER, uid, -1)
}

/**
 * Whether the caller has a capability over a file (kernel: capable_wrt_inode_uidgid).
 *
 * @param cap CAP_*, below 32
 * @param uid the file's owner as it is shown
 * @param gid the file's group as it is shown; -1: it does not matter
 */
function isCapableOver(caller: Caller, cap: number, uid: number, gid: number): boolean {
  const status = readProc(caller, 'status')
  if (status === '') return caller.uid === 0
  return hasEffective(status, cap) && ownerIsMapped(caller, uid, gid)
}

/**
 * Whether the caller has a capability in the initial user namespace (kernel: capable).
 *
 * @param cap CAP_*, below 32
 */
export function isCapable(caller: Caller, cap: number): boolean {
  const status = readProc(caller, 'status')
  if (status === '') return caller.uid === 0
  return hasEffective(status, cap) && EVERY_ID.test(readProc(caller, 'uid_map'))
}

/** What /proc has of the caller's thread, or ''. */
function readProc({ pid }: Caller, name: string): string {
  if (pid === 0) return ''
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'latin1')
  } catch {
    return ''
  }
}

/** The low half of the effective set. */
const hasEffective = (status: string, cap: number): boolean => {
  const low = /^CapEff:\s*[0-9a-f]*?([0-9a-f]{1,8})$/m.exec(status)?.[1] ?? '0'
  return (Number.parseInt(low, 16) & (1 << cap)) !== 0
}

/** uid_map of the initial user namespace. */
const EVERY_ID = /^\s*0\s+0\s+4294967295\s*$/

/**
 * Whether the ids are known in the caller's user namespace, outside of which its capabilities mean
 * nothing (kernel: privileged_wrt_inode_uidgid). -1: not asked for.
 */
function ownerIsMapped(caller: Caller, uid: number, gid: number): boolean {
  return (
    isMapped(readProc(caller, 'uid_map'), 'uid_map', uid) &&
    (gid === -1 || isMapped(readProc(caller, 'gid_map'), 'gid_map', gid))
  )
}

function isMapped(map: string, name: string, id: number): boolean {
  // The one of the server's own namespace is told in ids of its parent's: everything that is shown
  // is known in it.
  if (map === readProc({ uid: 0, gid: 0, pid: process.pid, umask: 0 }, name)) return true
  return map.split('\n').some(line => {
    const [, outside = -1, count = 0] = line.trim().split(/\s+/).map(Number)
    return id >= outside && id < outside + count
  })
}

/**
 * The numbers of chown, fchown, lchown and fchownat, and the others that those have for 32-bit
 * programs. Only of `narrow` is one another call that sends the same requests: lremovexattr on
 * x86-64, fremovexattr on arm64.
 */
const CHOWNS: Partial<Record<string, { wide: ReadonlySet<string>; narrow: string }>> = {
  x64: {
    wide: new Set(['92', '93', '94', '260', '16', '95', '182', '207', '212', '298']),
    narrow: '198',
  },
  arm64: { wide: new Set(['54', '55', '95', '182', '198', '207', '212', '325']), narrow: '16' },
}
function isChown(call: string, { wide, narrow }: { wide: ReadonlySet<string>; narrow: string }) {
  const fields = call.trim().split(' ')
  const [number = ''] = fields
  // The stack of a 32-bit program lies below 4 GiB.
  return wide.has(number) || (number === narrow && Number(fields.at(-2)) < 2 ** 32)
}

/** How often to look at a thread that has not gone to sleep yet. */
const MAX_READS = 100

/**
 * Whether the caller is in chown(2) or one of its kind; undefined where that can't be seen, for
 * want of CAP_SYS_PTRACE above all.
 */
export function isInChown(caller: Caller): boolean | undefined {
  const numbers = CHOWNS[process.arch]
  if (numbers === undefined) return undefined
  for (let looks = MAX_READS; looks > 0; looks--) {
    const call = readProc(caller, 'syscall')
    if (call === '') return undefined
    if (!call.startsWith('running')) return isChown(call, numbers)
    schedYield()
  }
  return undefined
}

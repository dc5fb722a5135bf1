/**
 * Decides whether a caller may keep the set-id bits of a file that it changes, and whether it may
 * remove them. A request contains the thread id, a user id and a group id of the caller. Everything
 * else, above all the capabilities, comes from /proc. It is only read if the result depends on it.
 * The calling thread is blocked on the request, so its entry in /proc still exists.
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
 * The mode after a write, truncation or chown by `caller` (kernel: setattr_should_drop_suidgid).
 * Without the group's execute bit, set-group-id stays if the caller is a member of the group.
 *
 * @param uid the shown owner of the file
 * @param gid the shown group of the file
 */
export function modeWithoutSetid(mode: number, uid: number, gid: number, caller: Caller): number {
  if ((mode & S_IFMT) === S_IFDIR) return mode
  const kept = mode & ~S_ISUID
  if ((mode & S_ISGID) === 0) return kept
  if ((mode & S_IXGRP) === 0 && isMember(caller, uid, gid)) return kept
  return kept & ~S_ISGID
}

/**
 * Whether the caller is in the file's group, or has the capability to act as a member (kernel:
 * in_group_or_capable).
 *
 * @param uid the shown owner of the file
 * @param gid the shown group of the file
 */
export function isMember(caller: Caller, uid: number, gid: number): boolean {
  if (caller.gid === gid) return true
  const status = readProc(caller, 'status')
  // The caller has ended, or is in another pid namespace. Without its status, only root counts as a
  // member.
  if (status === '') return caller.uid === 0
  const groups = /^Groups:\s*(.*)$/m.exec(status)?.[1] ?? ''
  if (groups.split(' ').includes(String(gid))) return true
  return hasEffective(status, CAP_FSETID) && ownerIsMapped(caller, uid, gid)
}

/**
 * Whether the caller may change the file's mode (kernel: inode_owner_or_capable).
 *
 * @param uid the shown owner of the file
 */
export function mayChangeMode(caller: Caller, uid: number): boolean {
  return caller.uid === uid || isCapableOver(caller, CAP_FOWNER, uid, -1)
}

/**
 * Whether the caller has a capability over a file (kernel: capable_wrt_inode_uidgid).
 *
 * @param cap CAP_*, below 32
 * @param uid the shown owner of the file
 * @param gid the shown group of the file; -1 to ignore it
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

/** The content of a file in /proc/PID of the caller's thread, or ''. */
function readProc({ pid }: Caller, name: string): string {
  if (pid === 0) return ''
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'latin1')
  } catch {
    return ''
  }
}

/** Reads the low 32 bits of the effective set. */
const hasEffective = (status: string, cap: number): boolean => {
  const low = /^CapEff:\s*[0-9a-f]*?([0-9a-f]{1,8})$/m.exec(status)?.[1] ?? '0'
  return (Number.parseInt(low, 16) & (1 << cap)) !== 0
}

/** uid_map of the initial user namespace. */
const EVERY_ID = /^\s*0\s+0\s+4294967295\s*$/

/**
 * Whether the ids are mapped in the caller's user namespace. Its capabilities do not extend to
 * other ids (kernel: privileged_wrt_inode_uidgid). A gid of -1 is ignored.
 */
function ownerIsMapped(caller: Caller, uid: number, gid: number): boolean {
  return (
    isMapped(readProc(caller, 'uid_map'), 'uid_map', uid) &&
    (gid === -1 || isMapped(readProc(caller, 'gid_map'), 'gid_map', gid))
  )
}

function isMapped(map: string, name: string, id: number): boolean {
  // The map of the server's own namespace shows the ids of the parent namespace. All shown ids are
  // mapped in it.
  if (map === readProc({ uid: 0, gid: 0, pid: process.pid, umask: 0 }, name)) return true
  return map.split('\n').some(line => {
    const [, outside = -1, count = 0] = line.trim().split(/\s+/).map(Number)
    return id >= outside && id < outside + count
  })
}

/**
 * The numbers of chown, fchown, lchown and fchownat, including those for 32-bit programs. The
 * number `narrow` is ambiguous: a 64-bit program uses it for another system call that causes the
 * same requests, lremovexattr on x86-64 and fremovexattr on arm64.
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
  // The stack of a 32-bit program is below 4 GiB.
  return wide.has(number) || (number === narrow && Number(fields.at(-2)) < 2 ** 32)
}

/** The maximum of reads while the thread is still running. */
const MAX_READS = 100

/**
 * Whether the caller is in chown(2) or a variant of it. Undefined if that can't be determined,
 * usually for lack of CAP_SYS_PTRACE.
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

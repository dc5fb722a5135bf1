/** The calls of a run as plain data: the operation, its objects, and the caller. */

import type { Time } from '../helpers/syscalls.js'
import { O, S } from '../helpers/syscalls.js'

/** A path relative to the mount's root (`slot` -1) or to the directory that is open in a slot. */
export interface Place {
  slot: number
  path: string
}

export const SLOTS = 12

export type Action =
  | { op: 'open'; place: Place; flags: number; mode: number; into: number }
  | { op: 'mkdir'; place: Place; mode: number }
  | { op: 'mknod'; place: Place; mode: number; major: number; minor: number }
  | { op: 'symlink'; place: Place; target: string }
  | { op: 'link'; place: Place; to: Place; follow: boolean }
  /** `empty`: use AT_EMPTY_PATH; otherwise a path through /proc/self/fd. */
  | { op: 'linkFd'; slot: number; to: Place; empty: boolean }
  | { op: 'unlink'; place: Place }
  | { op: 'rmdir'; place: Place }
  | { op: 'rename'; place: Place; to: Place; flags: number }
  | { op: 'chmod'; place: Place; mode: number }
  | { op: 'chown'; place: Place; uid: number; gid: number; follow: boolean }
  | { op: 'utimens'; place: Place; atime: Time; mtime: Time; follow: boolean }
  | { op: 'truncate'; place: Place; size: number }
  | {
      op: 'setxattr'
      place: Place
      name: string
      value: string
      flags: number
      follow: boolean
    }
  | { op: 'getxattr'; place: Place; name: string; room: number; follow: boolean }
  | { op: 'listxattr'; place: Place; room: number; follow: boolean }
  | { op: 'removexattr'; place: Place; name: string; follow: boolean }
  | { op: 'stat'; place: Place; follow: boolean }
  | { op: 'readlink'; place: Place; room: number }
  | { op: 'list'; place: Place; room: number }
  /** Reads part of a directory, changes something in it, reads the rest. */
  | { op: 'listDuring'; place: Place; room: number; changes: Call[] }
  /** Seeks to a position in the middle of a listing. */
  | { op: 'seekdir'; place: Place; index: number }
  | { op: 'access'; place: Place; mode: number; effective: boolean }
  | { op: 'statfs'; place: Place }
  | { op: 'getflags'; place: Place }
  | { op: 'setflags'; place: Place; flags: number }
  | { op: 'close'; slot: number }
  | { op: 'read'; slot: number; length: number }
  | { op: 'pread'; slot: number; at: number; length: number }
  | { op: 'write'; slot: number; length: number; fill: number }
  | { op: 'pwrite'; slot: number; at: number; length: number; fill: number }
  | { op: 'lseek'; slot: number; offset: number; whence: number }
  | { op: 'ftruncate'; slot: number; size: number }
  | { op: 'fallocate'; slot: number; mode: number; at: number; length: number }
  | { op: 'copy'; slot: number; at: number; toSlot: number; toAt: number; length: number }
  | { op: 'fsync'; slot: number; data: boolean }
  | { op: 'syncfs'; slot: number }
  | { op: 'fstat'; slot: number }
  | { op: 'fchmod'; slot: number; mode: number }
  | { op: 'fchown'; slot: number; uid: number; gid: number }
  | { op: 'futimens'; slot: number; atime: Time; mtime: Time }
  | { op: 'fsetxattr'; slot: number; name: string; value: string; flags: number }
  | { op: 'fgetxattr'; slot: number; name: string; room: number }
  | { op: 'flistxattr'; slot: number; room: number }
  | { op: 'fremovexattr'; slot: number; name: string }
  | { op: 'fgetflags'; slot: number }
  | { op: 'fsetflags'; slot: number; flags: number }
  /** Rewinds and reads the whole directory. */
  | { op: 'flist'; slot: number; room: number }
  | { op: 'flock'; slot: number; operation: number }
  | {
      op: 'mmap'
      slot: number
      prot: number
      shared: boolean
      at: number
      length: number
      fill: number
    }
  /** Makes the kernel drop its inodes and dentries. */
  | { op: 'forget' }
  /** Compares the whole trees. */
  | { op: 'compare' }
  /** Unmounts and mounts again; with `swap` each side mounts the layers of the other. */
  | { op: 'remount'; swap: boolean }
  /** Unmounts, makes the upper layer the topmost lower layer, and mounts with a new upper layer. */
  | { op: 'push' }

export interface Call {
  action: Action
  /** Index into USERS. */
  as: number
  umask: number
  /** Compare the attributes of the call's objects before and after it. */
  check: boolean
}

export const USERS = [
  { uid: 0, gid: 0, groups: [0] },
  { uid: 1000, gid: 1000, groups: [1000] },
  { uid: 2000, gid: 2000, groups: [2000, 1000] },
]

/** The places that a call names. */
export const placesOf = (action: Action): Place[] => {
  const places: Place[] = []
  if ('place' in action) places.push(action.place)
  if ('to' in action) places.push(action.to)
  if (action.op === 'listDuring') for (const c of action.changes) places.push(...placesOf(c.action))
  return places
}

/** The slots that a call uses. */
export const slotsOf = (action: Action): number[] => {
  const slots: number[] = []
  if ('slot' in action) slots.push(action.slot)
  if ('toSlot' in action) slots.push(action.toSlot)
  if ('into' in action) slots.push(action.into)
  for (const place of placesOf(action)) if (place.slot >= 0) slots.push(place.slot)
  return slots
}

export const showText = (text: string): string => {
  const shown = JSON.stringify(text)
    .replaceAll('n'.repeat(255), 'n{255}')
    .replaceAll('t'.repeat(1000), 't{1000}')
    .replace(/[\x80-\xff]/g, char => `\\x${char.charCodeAt(0).toString(16)}`)
  return shown.length > 400 ? `${shown.slice(0, 380)}…(${text.length})` : shown
}

const showFlags = (names: Record<string, number>, flags: number): string => {
  const shown: string[] = []
  let rest = flags
  for (const [name, bits] of Object.entries(names).toSorted((a, b) => b[1] - a[1]))
    if (bits !== 0 && (rest & bits) === bits) {
      shown.push(name)
      rest &= ~bits
    }
  if (rest !== 0) shown.push(`0x${rest.toString(16)}`)
  return shown.join('|')
}

const TYPES: Record<number, string> = {
  [S.IFREG]: 'regular',
  [S.IFCHR]: 'char',
  [S.IFBLK]: 'block',
  [S.IFIFO]: 'fifo',
  [S.IFSOCK]: 'socket',
}

type Argument = number | string | boolean | Place | Time | Call[]

const showValue = (op: string, key: string, value: Argument): string => {
  if (typeof value === 'string') return showText(value)
  if (Array.isArray(value)) return `[${value.map(call => showCall(call)).join('; ')}]`
  if (typeof value === 'object')
    return 'sec' in value
      ? `${value.sec}s+${value.nsec}ns`
      : `${value.slot < 0 ? '' : `@${value.slot}:`}${showText(value.path)}`
  if (typeof value === 'boolean') return String(value)
  if (op === 'open' && key === 'flags') {
    const access = ['O_RDONLY', 'O_WRONLY', 'O_RDWR'][value & 3] ?? '3'
    const rest = showFlags(O, value & ~3 & ~O.NONBLOCK)
    return rest === '' ? access : `${access}|${rest}`
  }
  if (op === 'rename' && key === 'flags')
    return value === 0 ? '0' : showFlags({ NOREPLACE: 1, EXCHANGE: 2, WHITEOUT: 4 }, value)
  if (key === 'mode' && op === 'mknod')
    return `${TYPES[value & S.IFMT] ?? 'type 0'} 0${(value & 0o7777).toString(8)}`
  if (key === 'mode' && op !== 'fallocate') return `0${value.toString(8)}`
  return String(value)
}

export const showCall = (call: Call): string => {
  const { op, ...rest } = call.action
  const parts = Object.entries<Argument>(rest).map(([key, value]) =>
    key === 'place' ? showValue(op, key, value) : `${key} ${showValue(op, key, value)}`,
  )
  const as = call.as === 0 ? '' : ` as ${USERS[call.as]?.uid}`
  const mask = call.umask === 0o22 ? '' : ` umask 0${call.umask.toString(8)}`
  return `${op}(${parts.join(', ')})${as}${mask}`
}

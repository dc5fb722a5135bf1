/**
 * Removes everything from layers and calls that the package fuse-native can't express. It would be
 * refused or done differently, and later results could not be compared. tolerated.ts has the
 * reasons: NOT_EXPRESSED.
 */

import { isUtf8 } from 'node:buffer'
import type { Time } from '../helpers/syscalls.js'
import { O, UTIME_NOW, UTIME_OMIT } from '../helpers/syscalls.js'
import type { Action, Call, Place } from './calls.js'
import type { EntrySpec, StackSpec } from './stack.js'

/**
 * Bytes that are not UTF-8 are taken as Latin-1 and encoded. The names are different ones, but they
 * stay distinct.
 */
const text = (bytes: string): string =>
  isUtf8(Buffer.from(bytes, 'latin1')) ? bytes : Buffer.from(bytes, 'utf8').toString('latin1')

const place = (p: Place): Place => ({ ...p, path: text(p.path) })

const isAcl = (name: string): boolean => name.startsWith('system.posix_acl')

const MS = 1_000_000
const isSpecial = ({ nsec }: Time): boolean => nsec === UTIME_NOW || nsec === UTIME_OMIT
const isValid = ({ nsec }: Time): boolean => nsec >= 0 && nsec < 1_000_000_000
const coarse = ({ sec, nsec }: Time): Time =>
  sec < 0 ? { sec: -sec, nsec: 0 } : { sec, nsec: nsec - (nsec % MS) }

/** Sets both times, both to "now", or neither. */
const times = <T extends { atime: Time; mtime: Time }>(call: T): T => {
  const { atime, mtime } = call
  if (isValid(atime) && isValid(mtime))
    return { ...call, atime: coarse(atime), mtime: coarse(mtime) }
  if (isSpecial(atime) && isSpecial(mtime)) return { ...call, mtime: atime }
  if (isSpecial(atime) && isValid(mtime))
    return { ...call, atime: coarse(mtime), mtime: coarse(mtime) }
  if (isValid(atime) && isSpecial(mtime))
    return { ...call, atime: coarse(atime), mtime: coarse(atime) }
  return call
}

const bySlot = new Set(['fgetflags', 'fsetflags', 'linkFd', 'fallocate', 'copy'])
const byPlace = new Set(['getflags', 'setflags'])

const action = (a: Action): Action => {
  if (bySlot.has(a.op) && 'slot' in a) return { op: 'fstat', slot: a.slot }
  if (byPlace.has(a.op) && 'place' in a) return { op: 'stat', place: place(a.place), follow: true }
  if (a.op === 'open') {
    // O_TMPFILE contains O_DIRECTORY, which remains.
    const flags = (a.flags & O.TMPFILE) === O.TMPFILE ? O.DIRECTORY : a.flags
    return { ...a, place: place(a.place), flags }
  }
  if (a.op === 'utimens') return { ...times(a), place: place(a.place) }
  if (a.op === 'futimens') return times(a)
  if (a.op === 'rename') return { ...a, place: place(a.place), to: place(a.to), flags: 0 }
  if (a.op === 'link') return { ...a, place: place(a.place), to: place(a.to) }
  if (a.op === 'symlink') return { ...a, place: place(a.place), target: text(a.target) }
  if (a.op === 'listDuring')
    return { ...a, place: place(a.place), changes: a.changes.map(expressible) }
  if ('name' in a) {
    const name = isAcl(a.name) ? 'user.acl' : text(a.name)
    return 'place' in a ? { ...a, name, place: place(a.place) } : { ...a, name }
  }
  return 'place' in a ? { ...a, place: place(a.place) } : a
}

/** Only root, the server's user, creates objects. */
const creates = (a: Action): boolean =>
  ['mkdir', 'mknod', 'symlink'].includes(a.op) || (a.op === 'open' && (a.flags & O.CREAT) !== 0)

export const expressible = (call: Call): Call => {
  const now = action(call.action)
  return { ...call, action: now, as: creates(now) ? 0 : call.as }
}

const entry = (e: EntrySpec): EntrySpec => ({
  ...e,
  path: text(e.path),
  target: text(e.target),
  xattrs: e.xattrs
    .filter(([name]) => !isAcl(name))
    .map(([name, value]): [string, string] => [text(name), value]),
})

/** Without metacopy, because a run with it sets only one of the times. */
export const expressibleStack = (stack: StackSpec): StackSpec => ({
  ...stack,
  lowers: stack.lowers.map(layer => layer.map(entry)),
  upper: stack.upper === null ? null : stack.upper.map(entry),
  metacopy: false,
})

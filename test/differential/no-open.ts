/**
 * Removes calls that `noopen` (`--noopen`) can't compare: errors that only an open can report. One
 * side would have a descriptor and the other none, and later results could not be compared.
 */

import type { Action, Call } from './calls.js'
import type { EntrySpec, StackSpec } from './stack.js'

/** The reasons; docs/DATA-MODES.md has the whole list. */
export const NOT_WITH_NOOPEN: Record<string, string> = {
  'immutable and append-only files': 'they can be opened, and every write fails',
  'capabilities that are not valid':
    'a file with one, or in a directory with one, cannot be copied up: EINVAL',
}

/** FS_IMMUTABLE_FL, FS_APPEND_FL */
const PROTECTING = 0x30

const CAPABILITY = 'security.capability'
/** struct vfs_cap_data and vfs_ns_cap_data, by their revision. */
const isValid = (value: string): boolean =>
  (value.length === 20 && value.charCodeAt(3) === 2) ||
  (value.length === 24 && value.charCodeAt(3) === 3)

const action = (a: Action): Action => {
  if (a.op === 'listDuring') return { ...a, changes: a.changes.map(withoutOpen) }
  if ('value' in a && a.name === CAPABILITY && !isValid(a.value))
    return { ...a, name: 'user.capability' }
  const sets = a.op === 'setflags' || a.op === 'fsetflags'
  return sets ? { ...a, flags: a.flags & ~PROTECTING } : a
}

export const withoutOpen = (call: Call): Call => ({ ...call, action: action(call.action) })

const entry = (e: EntrySpec): EntrySpec => ({
  ...e,
  xattrs: e.xattrs.filter(([name, value]) => name !== CAPABILITY || isValid(value)),
})

export const stackWithoutOpen = (stack: StackSpec): StackSpec => ({
  ...stack,
  lowers: stack.lowers.map(layer => layer.map(entry)),
  upper: stack.upper === null ? null : stack.upper.map(entry),
})

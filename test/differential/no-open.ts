/**
 * With `noopen` (`--noopen`) nobody is told that a file is opened. What only an open can be refused
 * for is taken out of the calls: nothing that comes after could be compared, since one side has a
 * descriptor and the other none.
 */

import type { Action, Call } from './calls.js'
import type { EntrySpec, StackSpec } from './stack.js'

/** The reasons; docs/IO-MODES.md, "noopen", has the whole list. */
export const NOT_WITH_NOOPEN: Record<string, string> = {
  'immutable and append-only files': 'they are opened, and refuse every write',
  'capabilities that are not valid':
    'what has one, or lies in such a directory, cannot be copied up: EINVAL',
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

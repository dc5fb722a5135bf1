/**
 * What is otherwise where both unions are mounted by root of a user namespace (`--userns`): the
 * kernel's overlayfs keeps its marks in `user.` attributes, has neither redirects nor an index, and
 * nobody makes devices. What one of the two can't do there is taken out of layers and calls. The
 * reasons are in tolerated.ts: NOT_IN_USERNS.
 */

import { readFileSync } from 'node:fs'
import type { Action, Call } from './calls.js'
import type { EntrySpec, StackSpec } from './stack.js'

/** The ids that the initial user namespace has: all but the one that means "none". */
const ALL_IDS = 2 ** 32 - 1

/** Whether this process is in another user namespace than the initial one. */
export const inUserNamespace = ((): boolean => {
  const [, , length] = readFileSync('/proc/self/uid_map', 'utf8').trim().split(/\s+/)
  return Number(length) !== ALL_IDS
})()

/** What the names of overlayfs' own attributes begin with. */
export const MARKS = inUserNamespace ? 'user.overlay.' : 'trusted.overlay.'

/**
 * A `trusted.` attribute can't be set: its marks are others, and an ordinary one takes the place of
 * the rest.
 */
const attribute = (name: string): string =>
  name.startsWith('trusted.overlay.')
    ? name.replace('trusted.', 'user.')
    : name === 'trusted.a'
      ? 'user.c'
      : name

const entry = (e: EntrySpec): EntrySpec => ({
  ...e,
  kind: e.kind === 'char' || e.kind === 'block' ? 'fifo' : e.kind,
  xattrs: e.xattrs.map(([name, value]): [string, string] => [attribute(name), value]),
})

/**
 * The stack without what can't be made, and with the options that the kernel takes with
 * `userxattr`.
 */
export const stackInUserns = (stack: StackSpec): StackSpec => ({
  lowers: stack.lowers.map(layer => layer.filter(e => e.kind !== 'link').map(entry)),
  upper: stack.upper === null ? null : stack.upper.map(entry),
  redirectDir: 'off',
  metacopy: false,
})

const isLink = (a: Action): boolean => a.op === 'link' || a.op === 'linkFd'

/**
 * @param links whether files may get another name: not where the upper layer becomes a lower one,
 *   since links in a lower layer part at copy-up
 */
export const callInUserns = (call: Call, links: boolean): Call => {
  const a = call.action
  if (!links && isLink(a))
    return {
      ...call,
      action:
        'slot' in a
          ? { op: 'fstat', slot: a.slot }
          : { op: 'stat', place: (a as Action & { op: 'link' }).place, follow: false },
    }
  // The others stay: that they are refused is the same on both sides.
  const isMark = 'name' in a && a.name.startsWith('trusted.overlay.')
  return isMark ? { ...call, action: { ...a, name: attribute(a.name) } } : call
}

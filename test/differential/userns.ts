/**
 * Differences for mounts by root of a user namespace (`--userns`): the kernel's overlayfs stores
 * its xattrs as `user.` xattrs and supports neither redirects nor an index, and devices can't be
 * created. Layers and calls that one side can't handle are removed. tolerated.ts has the reasons:
 * NOT_IN_USERNS.
 */

import { readFileSync } from 'node:fs'
import type { Action, Call } from './calls.js'
import type { EntrySpec, StackSpec } from './stack.js'

/** The number of ids in the initial user namespace: all but the id -1 ("none"). */
const ALL_IDS = 2 ** 32 - 1

/** Whether this process is in a user namespace other than the initial one. */
export const inUserNamespace = ((): boolean => {
  const [, , length] = readFileSync('/proc/self/uid_map', 'utf8').trim().split(/\s+/)
  return Number(length) !== ALL_IDS
})()

/** The prefix of the overlay xattrs. */
export const XATTR_PREFIX = inUserNamespace ? 'user.overlay.' : 'trusted.overlay.'

/**
 * A `trusted.` xattr can't be set. Overlay xattrs use the other prefix, and an ordinary xattr
 * replaces the rest.
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
 * The stack without entries that can't be created, and with the options that the kernel accepts
 * together with `userxattr`.
 */
export const stackInUserns = (stack: StackSpec): StackSpec => ({
  lowers: stack.lowers.map(layer => layer.filter(e => e.kind !== 'link').map(entry)),
  upper: stack.upper === null ? null : stack.upper.map(entry),
  redirectDir: 'off',
  metacopy: false,
})

const isLink = (a: Action): boolean => a.op === 'link' || a.op === 'linkFd'

/**
 * @param links whether files may get another name. False if the upper layer becomes a lower layer,
 *   because hard links in a lower layer are separated at copy-up
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
  // Other xattrs stay, because both sides refuse them in the same way.
  const isOverlayXattr = 'name' in a && a.name.startsWith('trusted.overlay.')
  return isOverlayXattr ? { ...call, action: { ...a, name: attribute(a.name) } } : call
}

/** The model of a run: the objects that probably exist. It resolves drafts. */

import type { Stat } from '../helpers/syscalls.js'
import { O, RENAME, S } from '../helpers/syscalls.js'
import type { Action, Place } from './calls.js'
import { SLOTS } from './calls.js'
import type { Outcome } from './perform.js'

export interface SlotState {
  dir: boolean
  regular: boolean
  writable: boolean
  direct: boolean
  tmpfile: boolean
}

/** The objects that probably exist. It need not be exact, because it only selects targets. */
export class Model {
  known = new Map<string, number>([['.', S.IFDIR]])
  slots: (SlotState | null)[] = Array.from({ length: SLOTS }, () => null)

  /** The xattrs that were set last: path and name. */
  xattrs: [string, string][] = []

  reset(entries: Iterable<[string, number]>): void {
    this.known = new Map(entries)
  }

  closeAll(): void {
    this.slots.fill(null)
  }

  private pathOf(place: Place): string | undefined {
    if (place.slot >= 0) return undefined
    const path = place.path.replace(/(\/\.?)+$/, '')
    return path === '' ? '.' : path
  }

  private forget(path: string): [string, number][] {
    const gone: [string, number][] = []
    for (const [p, type] of this.known)
      if (p === path || p.startsWith(`${path}/`)) gone.push([p, type])
    for (const [p] of gone) this.known.delete(p)
    return gone
  }

  /** Updates the model after a call. */
  note(action: Action, outcome: Outcome): void {
    if (outcome.ret < 0) return
    const learn = (place: Place, type: number): void => {
      const path = this.pathOf(place)
      if (path !== undefined) this.known.set(path, type)
    }
    // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- only what changes names or slots
    switch (action.op) {
      case 'open': {
        const stat: Stat | undefined = outcome.stats['the open file']
        const type = (stat?.mode ?? 0) & S.IFMT
        const tmpfile = (action.flags & O.TMPFILE) === O.TMPFILE
        const onlyPath = (action.flags & O.PATH) !== 0
        this.slots[action.into] = {
          dir: type === S.IFDIR,
          regular: type === S.IFREG && !onlyPath,
          writable: (action.flags & 3) !== 0 && !onlyPath,
          direct: (action.flags & O.DIRECT) !== 0,
          tmpfile,
        }
        if (action.flags & O.CREAT && !tmpfile) learn(action.place, type)
        break
      }
      case 'mkdir':
        learn(action.place, S.IFDIR)
        break
      case 'mknod':
        learn(action.place, action.mode & S.IFMT)
        break
      case 'symlink':
        learn(action.place, S.IFLNK)
        break
      case 'link':
      case 'linkFd':
        learn(action.to, S.IFREG)
        break
      case 'unlink':
      case 'rmdir': {
        const path = this.pathOf(action.place)
        if (path !== undefined) this.forget(path)
        break
      }
      case 'rename': {
        const from = this.pathOf(action.place)
        const to = this.pathOf(action.to)
        if (from === undefined || to === undefined || from === to) break
        const moved = this.forget(from)
        const replaced = this.forget(to)
        for (const [p, type] of moved) this.known.set(to + p.slice(from.length), type)
        if (action.flags & RENAME.EXCHANGE)
          for (const [p, type] of replaced) this.known.set(from + p.slice(to.length), type)
        break
      }
      case 'setxattr': {
        const path = this.pathOf(action.place)
        if (path !== undefined)
          this.xattrs = [[path, action.name] as [string, string], ...this.xattrs].slice(0, 30)
        break
      }
      case 'close':
        this.slots[action.slot] = null
        break
      case 'listDuring':
        for (const change of action.changes) this.note(change.action, outcome)
        break
      default:
        break
    }
  }
}

export type Aim = 'any' | 'file' | 'dir' | 'symlink' | 'child' | 'wild' | 'slot'

export interface PlaceDraft {
  aim: Aim
  number: number
  names: string[]
  dress: string
}

const nth = <T>(list: T[], number: number): T | undefined => list[number % list.length]

export const resolve = (model: Model, draft: PlaceDraft): Place => {
  // The root directory is a target only rarely.
  const withRoot = draft.aim === 'child' || draft.number % 8 === 0
  const paths = (fits: (type: number) => boolean): string[] =>
    [...model.known]
      .filter(([path, type]) => fits(type) && (withRoot || path !== '.'))
      .map(([path]) => path)
  // Paths are never absolute, and never lead above the empty directories above the mountpoint.
  const wild = draft.names
    .filter(name => name !== '..')
    .join('/')
    .replace(/^\/+/, '')
  const decorated = (path = wild): Place => ({
    slot: -1,
    path: path + (path === '' || (draft.dress === '/..' && !path.includes('/')) ? '' : draft.dress),
  })
  switch (draft.aim) {
    case 'any':
      return decorated(
        nth(
          paths(() => true),
          draft.number,
        ),
      )
    case 'file':
      return decorated(
        nth(
          paths(type => type === S.IFREG),
          draft.number,
        ),
      )
    case 'symlink':
      return decorated(
        nth(
          paths(type => type === S.IFLNK),
          draft.number,
        ),
      )
    case 'dir':
      return decorated(
        nth(
          paths(type => type === S.IFDIR),
          draft.number,
        ),
      )
    case 'child': {
      const parent = nth(
        paths(type => type === S.IFDIR),
        draft.number,
      )
      const name = draft.names[0] ?? 'a'
      return decorated(parent === undefined || parent === '.' ? name || 'a' : `${parent}/${name}`)
    }
    case 'slot': {
      const dirs = model.slots.flatMap((slot, i) => (slot?.dir ? [i] : []))
      return { ...decorated(wild), slot: nth(dirs, draft.number) ?? -1 }
    }
    case 'wild':
      return decorated(wild)
    default:
      return draft.aim satisfies never
  }
}

export const slotOf = (
  model: Model,
  number: number,
  fits: (slot: SlotState) => boolean,
): number => {
  const used = (test: (slot: SlotState) => boolean): number[] =>
    model.slots.flatMap((slot, i) => (slot !== null && test(slot) ? [i] : []))
  // Sometimes a slot that does not fit, because errors are compared, too.
  const strict = number % 16 !== 0
  return (
    (strict ? nth(used(fits), number >> 4) : undefined) ??
    nth(
      used(() => true),
      number >> 4,
    ) ??
    number % SLOTS
  )
}
export const regular = (slot: SlotState): boolean => slot.regular
export const writable = (slot: SlotState): boolean => slot.regular && slot.writable
export const directory = (slot: SlotState): boolean => slot.dir
export const anySlot = (): boolean => true

/** O_DIRECT needs whole blocks. */
export const alignment = (model: Model, slot: number): number =>
  model.slots[slot]?.direct ? 4096 : 1
export const roundUp = (value: number, to: number): number => Math.ceil(value / to) * to

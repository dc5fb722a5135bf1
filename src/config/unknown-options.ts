/**
 * The treatment of unknown and unsupported mount options: an error, or a message while the mount
 * continues.
 */

import { MountError } from '../errors.js'
import { isMountFlag } from './mount-flags.js'
import { rowOf, rows } from './table.js'

/**
 * `refuse`: an error (`tsoverlay mount`). `tell`: a message, like fuse-overlayfs, but a misspelt
 * layer option is an error. `pass`: a message (`--sloppy`).
 */
export type OnUnknown = 'refuse' | 'tell' | 'pass'

/**
 * The number of letters to insert, delete, replace or swap with their neighbour to turn one word
 * into the other (optimal string alignment).
 */
export const distance = (a: string, b: string): number => {
  let [older, old] = [[] as number[], Array.from({ length: b.length + 1 }, (_, i) => i)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      let least = Math.min(
        (old[j] ?? 0) + 1,
        (row[j - 1] ?? 0) + 1,
        (old[j - 1] ?? 0) + (same ? 0 : 1),
      )
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        least = Math.min(least, (older[j - 2] ?? 0) + 1)
      }
      row.push(least)
    }
    ;[older, old] = [old, row]
  }
  return old[b.length] ?? 0
}

/** Every known name, except x-*. `remount` is not parsed here. */
export const knownNames = (): string[] =>
  rows.filter(row => row.fate !== 'remount').flatMap(row => row.names)

/** Normalizes a name: case, `-` and `_` are ignored in comparisons. */
const plain = (name: string): string => name.toLowerCase().replaceAll(/[-_ ]/g, '')

/** The word that is most similar to `name`; undefined if none is similar. */
export const nearest = (name: string, words: readonly string[]): string | undefined => {
  const given = plain(name)
  let found: string | undefined
  let least = Math.max(1, Math.floor(given.length / 3)) + 1
  for (const word of words) {
    const away = distance(given, plain(word))
    if (away < least) [least, found] = [away, word]
  }
  return found
}

/** Short forms of the layers' names. */
const shortForms: ReadonlyMap<string, string> = new Map([
  ['lower', 'lowerdir'],
  ['upper', 'upperdir'],
  ['work', 'workdir'],
])

/** The layer option that a misspelt name stands for, if any. */
const layerMeant = (name: string): string | undefined => {
  const given = plain(name.replace(/\+$/, ''))
  return (
    shortForms.get(given) ??
    ['lowerdir', 'upperdir', 'workdir'].find(layer => distance(given, layer) <= 2)
  )
}

const refusal = (item: string): MountError => {
  const name = item.split('=', 1)[0] ?? ''
  const row = rowOf(name)
  const meant = layerMeant(name) ?? nearest(name, knownNames())
  const why =
    row?.fate === 'not offered'
      ? `this option is not offered: ${row.why}`
      : isMountFlag(name)
        ? `this option takes no value; write ${name}`
        : meant === undefined
          ? 'no such option'
          : `no such option; did you mean ${meant}?`
  return new MountError(`${item}: ${why}`, { option: name, code: 'EINVAL' })
}

/**
 * @param ignored the unknown or unsupported options, as given
 * @param labels SELinux labels, as given
 * @returns messages for the user
 * @throws {MountError}
 */
export const checkUnknown = (
  ignored: readonly string[],
  labels: readonly string[],
  onUnknown: OnUnknown,
): string[] => {
  for (const item of ignored) {
    const name = item.split('=', 1)[0] ?? ''
    if (onUnknown === 'refuse' || (onUnknown === 'tell' && layerMeant(name) !== undefined)) {
      throw refusal(item)
    }
  }
  const [label] = labels
  if (label !== undefined && onUnknown === 'refuse') {
    throw new MountError(`${label}: a union gets no SELinux label by an option; leave it out`, {
      option: label.split('=', 1)[0] ?? '',
      code: 'EINVAL',
    })
  }
  return ignored.map(item => `unknown argument ignored: ${item}`)
}

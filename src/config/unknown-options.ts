/** Mount options that are not known, or not offered: an error, or a line and the mount goes on. */

import { MountError } from '../errors.js'
import { isMountFlag } from './mount-flags.js'
import { rowOf, rows } from './table.js'

/**
 * What becomes of an option that is not known. `refuse`: an error (`tsoverlay mount`). `tell`: a
 * line, as fuse-overlayfs does; but a layer whose name is misspelt is an error. `pass`: a line
 * (`--sloppy`).
 */
export type OnUnknown = 'refuse' | 'tell' | 'pass'

/**
 * How many letters have to be put in, left out, replaced or exchanged with their neighbour to make
 * one word of the other (optimal string alignment).
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

/** Every name with a meaning, other than x-*. `remount` is not parsed here. */
export const knownNames = (): string[] =>
  rows.filter(row => row.fate !== 'remount').flatMap(row => row.names)

/** Upper and lower case, `-` and `_` are no difference to who misspells. */
const plain = (name: string): string => name.toLowerCase().replaceAll(/[-_ ]/g, '')

/** The word that is most like `name`; undefined where none is like it. */
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

/** The layer that is meant by a misspelt name, if any. */
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
 * @param ignored the options that nobody here knows or offers, as they were given
 * @param labels SELinux labels, as they were given
 * @returns lines for the user
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

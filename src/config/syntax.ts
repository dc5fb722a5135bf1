/**
 * The syntax of `-o`: commas, colons, escapes and relative paths. Paths become absolute but are not
 * normalized: `..` stays, because the component before it may be a symlink.
 */

import { MountError } from '../errors.js'
import { rowOf } from './table.js'

/** Splits at each separator without a backslash before it. Backslashes stay. */
const split = (text: string, separator: string): string[] => {
  const parts: string[] = []
  let from = 0
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '\\') i++
    else if (text[i] === separator) {
      parts.push(text.slice(from, i))
      from = i + 1
    }
  }
  parts.push(text.slice(from))
  return parts
}

/** Splits the value of `-o` at its commas; empty items are removed. */
export const splitOptions = (text: string): string[] =>
  joinLabels(split(text, ',')).filter(item => item !== '')

/** The value of a label may have commas inside double quotes: `context="u:r:t:s0:c1,c2"`. */
const joinLabels = (items: string[]): string[] => {
  const joined: string[] = []
  for (let i = 0; i < items.length; i++) {
    const item = items[i] ?? ''
    const [name = '', value = ''] = item.split('=', 2)
    let last = i
    if (value.startsWith('"') && rowOf(name)?.fate === 'label' && !/".*"$/s.test(value)) {
      const end = items.findIndex((part, at) => at > i && part.endsWith('"'))
      if (end > i) last = end
    }
    joined.push(items.slice(i, last + 1).join(','))
    i = last
  }
  return joined
}

/** Removes the backslash of every escape, like ovl_unescape(): `\x` is `x` for every x. */
export const unescapeOption = (text: string): string => text.replaceAll(/\\(.?)/gs, '$1')

/** Makes a path absolute by a prefix; the path itself is not normalized. */
export const absolute = (path: string, cwd: string): string =>
  path.startsWith('/') ? path : `${cwd === '/' ? '' : cwd}/${path}`

export const missingValue = (option: string): MountError =>
  new MountError(`${option}: the value is missing; write ${option}=...`, {
    option,
    code: 'EINVAL',
  })

export const noDataLayers = (item: string): MountError =>
  new MountError(
    `${item}: data-only layers (:: and datadir+) are not supported; separate layers by one colon`,
    { option: item.split('=', 1)[0] ?? '', code: 'EINVAL' },
  )

/**
 * The layers of a `lowerdir` value, topmost first, unescaped.
 * @throws {MountError} for an empty path and for `::` (data-only layers)
 */
export const splitLowerdir = (value: string): string[] => {
  if (value === '') throw missingValue('lowerdir')
  const parts = split(value, ':')
  if (parts.some((part, i) => part === '' && i > 0 && i < parts.length - 1)) {
    throw noDataLayers(`lowerdir=${value}`)
  }
  if (parts.includes('')) {
    throw new MountError(
      `lowerdir=${value}: a colon stands at the beginning or the end; remove it, or write \\: where it belongs to a name`,
      { option: 'lowerdir', code: 'EINVAL' },
    )
  }
  return parts.map(unescapeOption)
}

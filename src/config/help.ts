/** The mount options as `tsoverlay mount --help` lists them. */

import { rows, type TableRow } from './table.js'

/**
 * The usage of an option: `index=on|off`, `upperdir=DIR`, `noopen`.
 * @param isWhole whether all words are listed, even if the table has a placeholder for them
 */
export const usageOf = (row: TableRow, name = row.names[0] ?? '', isWhole = false): string => {
  if (row.value === 'none') return name
  const given = 'placeholder' in row ? row.placeholder : undefined
  if (typeof row.value === 'string') return `${name}=${given ?? 'VALUE'}`
  return `${name}=${(isWhole ? undefined : given) ?? row.value.join('|')}`
}

const COLUMN = 22
const WIDTH = 100

/** Joins words to lines. */
const fill = (words: readonly string[], indent: string): string => {
  const lines: string[] = []
  let line = indent
  for (const word of words) {
    if (line !== indent && line.length + 1 + word.length > WIDTH) {
      lines.push(line)
      line = indent
    }
    line += line === indent ? word : ` ${word}`
  }
  return [...lines, line].join('\n')
}

export const mountOptionsHelp = (): string => {
  const lines = rows
    .filter(row => 'help' in row)
    .map(row => `  ${usageOf(row).padEnd(COLUMN)} ${row.help}`)
  const flags = rows.filter(row => row.fate === 'flag').map(row => row.names[0])
  const last = `${flags.join(', ')} and their opposites`
  return [...lines, fill(last.split(' '), '  ')].join('\n')
}

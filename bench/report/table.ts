/** Formats a Markdown table with aligned columns, so that the source is readable. */

/** The first column is text, the others are numbers. */
export const table = (head: readonly string[], rows: readonly (readonly string[])[]): string => {
  const widths = head.map((_, n) =>
    Math.max(n === 0 ? 3 : 4, ...[head, ...rows].map(cells => (cells[n] ?? '').length)),
  )
  const pad = (text: string, n: number): string => {
    const width = widths[n] ?? 0
    return n === 0 ? text.padEnd(width) : text.padStart(width)
  }
  const line = (cells: readonly string[]): string =>
    `| ${widths.map((_, n) => pad(cells[n] ?? '', n)).join(' | ')} |\n`
  const rule = widths.map((width, n) => (n === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`))
  return line(head) + line(rule) + rows.map(line).join('')
}

/** Rounds to three significant digits at most. */
export const short = (value: number): string =>
  value >= 100 || value === 0 ? String(Math.round(value)) : value.toFixed(value >= 10 ? 1 : 2)

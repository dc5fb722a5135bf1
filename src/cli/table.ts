/** Text output: columns, paths on one line, sizes and ages. */

/**
 * Escapes characters that would end a line or a column, or control a terminal, as mountinfo does:
 * `\\012`.
 */
export const oneWord = (path: string): string =>
  path.replaceAll(/[ \\\p{Cc}\p{Zl}\p{Zp}]/gu, c =>
    Array.from(Buffer.from(c), byte => `\\${byte.toString(8).padStart(3, '0')}`).join(''),
  )

/**
 * Formats rows as lines. The first row has the headings. Columns in `toTheRight` are aligned to the
 * right.
 */
export const table = (
  rows: readonly (readonly string[])[],
  toTheRight: ReadonlySet<number>,
): string[] => {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map(row => row[i]?.length ?? 0)))
  return rows.map(row =>
    row
      .map((cell, i) =>
        toTheRight.has(i) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  )
}

const UNITS = ['B', 'K', 'M', 'G', 'T', 'P'] as const

/** Formats bytes in units of 1024: `12K`, `1.5M`. */
export const size = (bytes: number): string => {
  let n = bytes
  let unit = 0
  for (; n >= 1024 && unit < UNITS.length - 1; unit++) n /= 1024
  const digits = unit > 0 && n < 10 ? 1 : 0
  return `${n.toFixed(digits)}${UNITS[unit]}`
}

const MINUTE = 60
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

/** Formats seconds: `5s`, `3m`, `2h`, `12d`. */
export const age = (seconds: number): string => {
  if (seconds < MINUTE) return `${Math.floor(seconds)}s`
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)}m`
  if (seconds < DAY) return `${Math.floor(seconds / HOUR)}h`
  return `${Math.floor(seconds / DAY)}d`
}

/** The report as a bar chart: how many times as long as the first file system, on a logarithmic scale. */

import { groups, short } from './markdown.js'
import type { Report, Row } from './results.js'

const COLOURS = ['#000000', '#1f77b4', '#17a2b8', '#d62728', '#ff9f1c', '#8c564b', '#9467bd']
const LEFT = 380
const PLOT = 560
const WIDTH = LEFT + PLOT + 70
const BAR = 9
const GAP = 8
const HEAD = 34

const escape = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')

const text = (x: number, y: number, content: string, more = ''): string =>
  `<text x="${x}" y="${y}" ${more}>${escape(content)}</text>\n`

interface Bar {
  system: string
  ratio: number
}

/** One for each file system but the first, which is the line at 1. */
const barsOf = (row: Row, base: string): Bar[] =>
  row.results.flatMap(({ system, ratios }) => {
    const ratio = ratios[base]
    return ratio === undefined ? [] : [{ system, ratio }]
  })

/** Powers of ten around all ratios. */
const decades = (ratios: readonly number[]): { low: number; high: number } => ({
  low: Math.floor(Math.log10(Math.min(0.5, ...ratios))),
  high: Math.ceil(Math.log10(Math.max(2, ...ratios))),
})

export const svg = (report: Report): string => {
  const names = report.systems.map(({ name }) => name)
  const [base = ''] = names
  const colour = (system: string): string =>
    COLOURS[names.indexOf(system) % COLOURS.length] ?? '#000000'
  // Without the first file system, or with nothing else, a row has no bars.
  const panels = groups(report).map(({ title, rows }) => ({
    title,
    rows: rows.filter(row => !row.reference && barsOf(row, base).length > 0),
  }))
  const { low, high } = decades(
    panels.flatMap(({ rows }) => rows.flatMap(row => barsOf(row, base).map(({ ratio }) => ratio))),
  )
  const x = (ratio: number): number =>
    Math.round((LEFT + ((Math.log10(ratio) - low) / (high - low)) * PLOT) * 10) / 10

  const out: string[] = []
  let y = 30
  out.push(text(16, y, `Time, in multiples of ${base} (shorter is faster)`, 'font-size="16"'))
  y += 22
  names.slice(1).forEach((name, n) => {
    const at = 16 + (n % 5) * 195
    const line = y + Math.floor(n / 5) * 18
    out.push(`<rect x="${at}" y="${line - 9}" width="11" height="11" fill="${colour(name)}"/>\n`)
    out.push(text(at + 16, line, name))
  })
  y += Math.ceil((names.length - 1) / 5) * 18

  for (const { title, rows } of panels) {
    y += HEAD
    out.push(text(16, y, title, 'font-size="14" font-weight="bold"'))
    const top = y + 8
    y = top
    const marks: string[] = []
    for (const row of rows) {
      y += GAP
      const bars = barsOf(row, base)
      const middle = y + (bars.length * BAR) / 2 + 4
      marks.push(text(LEFT - 8, middle, row.title, 'text-anchor="end"'))
      for (const { system, ratio } of bars) {
        const from = Math.min(x(1), x(ratio))
        const width = Math.max(1, Math.abs(x(ratio) - x(1)))
        marks.push(
          `<rect x="${from}" y="${y}" width="${width.toFixed(1)}" height="${BAR - 1}" fill="${colour(system)}"/>\n`,
        )
        marks.push(text(Math.max(x(ratio), x(1)) + 4, y + 8, short(ratio), 'font-size="8"'))
        y += BAR
      }
    }
    y += GAP
    for (let power = low; power <= high; power++) {
      const at = x(10 ** power)
      const stroke = power === 0 ? '#000000' : '#dddddd'
      out.push(`<line x1="${at}" x2="${at}" y1="${top}" y2="${y}" stroke="${stroke}"/>\n`)
      out.push(
        text(at, y + 12, String(Number((10 ** power).toPrecision(1))), 'text-anchor="middle"'),
      )
    }
    out.push(...marks)
    y += 16
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y + 10}" font-family="sans-serif" font-size="11">
<rect width="100%" height="100%" fill="#ffffff"/>
${out.join('')}</svg>
`
}

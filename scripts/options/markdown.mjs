// docs/OPTIONS.md

const NONE = '—'

const cell = text => text.replaceAll('|', String.raw`\|`)
const code = text => `\`${text}\``

/** What others call an option. */
const called = text => (text === undefined ? NONE : text)

const optionCell = (row, usageOf) => {
  const [first, ...others] = row.names
  if (first === undefined) return NONE
  if (row.value === 'any') return row.names.map(code).join(', ')
  return [usageOf(row, first, true), ...others].map(code).join(', ')
}

/** The documents are beside this one. */
const linked = text => text.replaceAll(/docs\/([A-Z-]+\.md)/g, '[$1]($1)')

const COLUMNS = [
  'option',
  'meaning',
  'default',
  'library key',
  'kernel overlayfs',
  'fuse-overlayfs',
]

const line = cells => `| ${cells.join(' | ')} |`

const section = ({ title, rows }, usageOf) => {
  const has = {
    default: rows.some(row => row.default !== undefined),
    key: rows.some(row => row.key !== undefined),
  }
  // Columns that would be empty in all rows are left out.
  const columns = COLUMNS.filter(
    name => (name !== 'default' || has.default) && (name !== 'library key' || has.key),
  )
  const cells = row => [
    cell(optionCell(row, usageOf)),
    cell(linked(row.text)),
    ...(has.default ? [row.default === undefined ? NONE : row.default] : []),
    ...(has.key ? [row.key === undefined ? NONE : code(row.key)] : []),
    cell(called(row.kernel)),
    cell(called(row.fuseOverlayfs)),
  ]
  return [
    `## ${title}`,
    '',
    line(columns),
    line(columns.map(() => '---')),
    ...rows.map(row => line(cells(row))),
    '',
  ].join('\n')
}

const HEAD = `# Mount options

<!-- Generated from src/config/table.ts. To change it, change the table and run \`npm run generate\`. -->

This document lists the mount options: words of \`tsoverlay mount -o\`, of fstab and of the command line of
fuse-overlayfs. The column "library key" names the key of \`mount()\` for the same setting; a row without an option is a
key that only the library has. The last two columns name the option in kernel overlayfs (or mount(2)) and in
fuse-overlayfs (or libfuse): "same" means the same name, "${NONE}" that there is no such option.

Options are separated by commas. Several \`-o\` add up, and the last value of an option wins. \`\\:\`, \`\\,\` and \`\\\\\` stand
for the characters themselves. Relative paths start at the working directory.

An unknown option is an error, and a wrong value is always an error. With \`-s\` (\`--sloppy\`) an unknown option is only
reported. The command line of fuse-overlayfs reports it, too, but a misspelt \`lowerdir\`, \`upperdir\` or \`workdir\` is an
error. [FOREIGN-OPTIONS.md](FOREIGN-OPTIONS.md) says what each option does in each of these ways.
`

export const optionsDocument = ({ table, usageOf }) =>
  [HEAD, ...table.map(group => section(group, usageOf))].join('\n').trimEnd() + '\n'

// The man pages tsoverlay(1) and mount.tsoverlay(8), in roff with the macros of man(7).

/** Text of a paragraph: a control character at the beginning of a line is no request. */
const plain = text =>
  text
    .replaceAll('\\', String.raw`\e`)
    .replaceAll('-', String.raw`\-`)
    .replaceAll(/^([.'])/gm, String.raw`\&$1`)

/** Text with code between backticks, which is printed bold. */
const rich = text =>
  text
    .split('`')
    .map((part, i) => (i % 2 === 1 ? String.raw`\fB${plain(part)}\fR` : plain(part)))
    .join('')
    .replaceAll(/^([.'])/gm, String.raw`\&$1`)

const bold = text => String.raw`\fB${plain(text)}\fR`
const italic = text => String.raw`\fI${plain(text)}\fR`

const section = (title, ...lines) => [`.SH ${title.includes(' ') ? `"${title}"` : title}`, ...lines]
const item = (term, ...lines) => ['.TP', term, ...lines]
const literal = lines => ['.PP', '.nf', ...lines.map(line => plain(line)), '.fi']

/** `upperdir=DIR` and words such as `on|off`, with what stands for something else in italics. */
const usage = text => {
  const equals = text.indexOf('=')
  if (equals === -1) return bold(text)
  const value = text.slice(equals + 1)
  const shown = value.includes('|') ? bold(value) : italic(value)
  return bold(text.slice(0, equals + 1)) + shown
}

const isLiteral = line => line.startsWith('  ')

/** Paragraphs; indented lines are literal. */
const paragraphs = text =>
  text.split(/\n\n+/).flatMap(block => {
    const lines = block.split('\n')
    const out = ['.PP']
    const from = lines.findIndex(isLiteral)
    out.push(...lines.slice(0, from === -1 ? lines.length : from).map(rich))
    if (from !== -1)
      out.push(...literal(lines.slice(from).map(line => line.replace(/^ {2}/, '    '))))
    return out
  })

const flagsOf = ({ short, long, argument }) =>
  [short, long].filter(Boolean).map(bold).join(', ') +
  (argument === undefined ? '' : ` ${italic(argument)}`)

/** `[options] <mountpoint>` */
const argumentsOf = text =>
  text
    .replace('[options] [command]', '[options]')
    .split(' ')
    .map(word => word.replaceAll(/[a-z-]+/g, name => italic(name)))
    .join(' ')
    .replaceAll(/[<>]/g, '')

const isHelp = ({ long }) => long === '--help'

/** The mount options have a section of their own. */
const withoutMountOptions = text => text.replace(/^Mount options \(-o\)[\s\S]*?\n\n/, '')

const commandLines = (command, path) => {
  const { name, aliases, description, usage: arguments_, options, after, commands } = command
  const whole = `${path} ${name}`
  const heading = `${plain(whole.replace(/^tsoverlay /, ''))} ${argumentsOf(arguments_)}`.trim()
  const own = [
    `.SS "${heading}"`,
    rich(description),
    ...(aliases.length === 0 ? [] : [`Also ${aliases.map(bold).join(', ')}.`]),
    ...command.arguments.flatMap(argument =>
      item(italic(argument.name), rich(`${argument.description}.`)),
    ),
    ...options
      .filter(option => !isHelp(option))
      .flatMap(option => item(flagsOf(option), rich(`${option.full}.`))),
    ...(after === '' ? [] : paragraphs(withoutMountOptions(after))),
  ]
  return [...own, ...commands.flatMap(sub => commandLines(sub, whole))]
}

const synopsis = ({ name, commands, usage: arguments_ }, path = '') => {
  const whole = `${path}${name}`
  if (commands.length > 0) return commands.flatMap(sub => synopsis(sub, `${whole} `))
  return [`${bold(whole)} ${argumentsOf(arguments_)}`.trimEnd(), '.br']
}

const optionTerm = (row, usageOf) =>
  row.value === 'any'
    ? row.names.map(bold).join(', ')
    : row.names.map(name => usage(usageOf(row, name, true))).join(', ')

const defaultOf = row =>
  row.default === undefined
    ? []
    : [rich(row.default === 'required' ? 'Required.' : `Default: ${row.default}.`)]

const mountOptions = ({ table, usageOf }) =>
  section(
    'MOUNT OPTIONS',
    rich(
      'Options are separated by commas; several `-o` add up, and the last value of an option wins.',
    ),
    rich(
      String.raw`Write \e: \e, \e\e for a colon, a comma and a backslash.`.replaceAll(
        String.raw`\e`,
        '\\',
      ),
    ),
    ...table.flatMap(({ title, rows }) => [
      `.SS "${plain(title)}"`,
      ...rows
        .filter(row => row.names.length > 0)
        .flatMap(row => item(optionTerm(row, usageOf), rich(row.text), ...defaultOf(row))),
    ]),
  )

const EXIT_STATUSES = {
  OK: 'Success.',
  USAGE: 'Wrong usage: an unknown command or option, a missing argument, a wrong value.',
  INTERNAL: 'A fault of the program or of its installation.',
  STILL_SERVED:
    '`umount`: the mount is gone, but its server still has the layers open. `server stop`: the server has not ended. `server status`: no server runs.',
  INTERRUPTED: 'Interrupted before the mount was live; nothing is mounted.',
  FAILED:
    'The mount could not be made or taken away, `stats` found no server to ask, or `which` found no such name.',
}

const exitStatuses = ({ exitCodes }) =>
  section(
    'EXIT STATUS',
    ...Object.entries(exitCodes).flatMap(([name, status]) => {
      const text = EXIT_STATUSES[name]
      if (text === undefined) throw new Error(`no text for the exit status ${name}`)
      return item(bold(String(status)), rich(text))
    }),
  )

const environment = section(
  'ENVIRONMENT',
  ...item(
    bold('TSOVERLAY_SERVER'),
    rich(
      'The name of the resident server to use. If it is empty, every mount gets a server of its own.',
    ),
  ),
  ...item(
    bold('XDG_RUNTIME_DIR'),
    rich("The directory of an ordinary user's resident server; root's is below `/run`."),
  ),
  ...item(
    bold('FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT'),
    rich(
      'If it is set, `whiteout=wh` is the default of the command line of fuse-overlayfs and of mount(8).',
    ),
  ),
)

const head = (name, number, title) => [
  `.\\" Generated from src/config/table.ts and src/cli/commands by scripts/options.mjs: npm run generate`,
  `.TH ${plain(name.toUpperCase())} ${number} "" tsoverlay "${title}"`,
]

const page = parts => `${parts.flat().join('\n')}\n`

export const programPage = model => {
  const { program } = model
  return page([
    head('tsoverlay', 1, 'User Commands'),
    section(
      'NAME',
      String.raw`tsoverlay \- union (overlay) filesystem in userspace, served over FUSE`,
    ),
    section(
      'SYNOPSIS',
      ...synopsis(program),
      `${bold('tsoverlay')} [${bold('-f')}] [${bold('-d')}] ${bold('-o')} ${italic('options')} [${italic('source')}] ${italic('mountpoint')}`,
    ),
    section(
      'DESCRIPTION',
      rich(program.description),
      ...paragraphs(
        'A union merges read-only directories (the lower layers) and one writable directory (the upper layer) into one tree. No lower layer is ever written. Without a command, the program takes the command line of fuse-overlayfs; see `mount.tsoverlay`(8) for mount(8) and fstab.',
      ),
    ),
    section(
      'OPTIONS',
      ...program.options.flatMap(option => item(flagsOf(option), rich(option.full))),
    ),
    section('COMMANDS', ...program.commands.flatMap(command => commandLines(command, 'tsoverlay'))),
    mountOptions(model),
    exitStatuses(model),
    environment,
    section('EXAMPLES', ...paragraphs(program.after)),
    section(
      'SEE ALSO',
      `${bold('mount.tsoverlay')}(8), ${bold('mount')}(8), ${bold('umount')}(8), ${bold('fusermount3')}(1), ${bold('fuse')}(4)`,
    ),
  ])
}

export const helperPage = model =>
  page([
    head('mount.tsoverlay', 8, 'System Administration'),
    section('NAME', String.raw`mount.tsoverlay \- mount a tsoverlay union with mount(8) or fstab`),
    section(
      'SYNOPSIS',
      `${bold('mount -t tsoverlay')} ${italic('source mountpoint')} ${bold('-o')} ${italic('options')}`,
      '.br',
      `${bold('mount.tsoverlay')} ${italic('source mountpoint')} [${bold('-sfnv')}] [${bold('-t')} ${italic('type')}] ${bold('-o')} ${italic('options')}`,
    ),
    section(
      'DESCRIPTION',
      ...paragraphs(
        [
          'mount(8) runs this helper for the type `tsoverlay`, if `/sbin/mount.tsoverlay` is a link to the program tsoverlay. With `mount.fuse3` of the package fuse3 the type `fuse.tsoverlay` needs no link.',
          'mount(8) gives a helper no PATH: `node` must be in `/usr/bin` or `/bin`.',
          'The helper returns when the mount is live; a server in the background serves it. `source` is what /proc/mounts shows; the option `fsname` comes first.',
        ].join('\n\n'),
      ),
    ),
    section(
      'OPTIONS',
      ...item(`${bold('-o')} ${italic('options')}`, 'The mount options; see below.'),
      ...item(
        bold('-s'),
        rich(
          'Report any unknown option, and mount. Without it, a misspelt `lowerdir`, `upperdir` or `workdir` is an error.',
        ),
      ),
      ...item(bold('-f'), 'Do nothing: mount(8) only pretends to mount.'),
      ...item(
        `${bold('-n')}, ${bold('-v')}, ${bold('-t')} ${italic('type')}`,
        'Accepted without effect.',
      ),
      ...item(
        `${bold('-N')} ${italic('namespace')}`,
        rich('Refused; use `nsenter --mount=FILE mount`.'),
      ),
    ),
    mountOptions(model),
    section(
      'EXAMPLES',
      ...paragraphs(
        [
          'A line of fstab:',
          '  none  /mnt/m  fuse.tsoverlay  lowerdir=/a:/b,upperdir=/u,workdir=/w,x-systemd.requires-mounts-for=/u  0  0',
          'The same by hand:',
          '  ln -s "$(command -v tsoverlay)" /sbin/mount.tsoverlay\n  mount -t tsoverlay none /mnt/m -o lowerdir=/a:/b,upperdir=/u,workdir=/w',
        ].join('\n\n'),
      ),
    ),
    section('SEE ALSO', `${bold('tsoverlay')}(1), ${bold('mount')}(8), ${bold('fstab')}(5)`),
  ])

/**
 * The command line of fuse-overlayfs, which mount(8) uses, too: `[-f] [-d] -o OPTIONS [SOURCE]
 * MOUNTPOINT`, without a command. It is translated to `mount ...`. Pure functions without imports,
 * because every start executes this file.
 */

/** The program name that replaces fuse-overlayfs: each invocation is a mount. */
const ALIAS = 'fuse-overlayfs'

/** The version of fuse-overlayfs whose options are supported. */
const ALIAS_VERSION = '1.16'

/**
 * The commands of program.ts. A command line that begins with one of them is not a mount without a
 * command.
 */
export const commandNames: ReadonlySet<string> = new Set([
  'mount',
  'umount',
  'unmount',
  'ls',
  'stats',
  'which',
  'top',
  'server',
])

export type Invocation =
  /** Continue with these arguments after printing the notes. */
  | { kind: 'run'; args: readonly string[]; notes: readonly string[] }
  /** Print the version like fuse-overlayfs: `aliasVersion`. */
  | { kind: 'version' }
  /** Do nothing: `mount -f` of mount(8), a dry run. */
  | { kind: 'nothing' }
  | { kind: 'wrong'; message: string }

/**
 * Parses a command line.
 * @param name the program's name as invoked, without directories
 * @param args without node and the script
 */
export const readInvocation = (
  name: string,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Invocation => {
  if (name.startsWith('mount.')) return asHelper(args, env)
  const own = name !== ALIAS
  const [first = ''] = args
  if (own && (commandNames.has(first) || !args.some(arg => arg.startsWith('-o')))) {
    return { kind: 'run', args, notes: [] }
  }
  const words = readWords(args)
  if (words.help) return { kind: 'run', args: ['mount', '--help'], notes: [] }
  if (words.version)
    return own ? { kind: 'run', args: ['--version'], notes: [] } : { kind: 'version' }
  return translate(words, env)
}

/**
 * A helper of mount(8): `mount.tsoverlay SOURCE MOUNTPOINT [-sfnv] [-t TYPE] -o OPTIONS`. Its `-f`
 * has another meaning than that of fuse-overlayfs.
 */
const asHelper = (
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Invocation => {
  const rest: string[] = []
  let sloppy = false
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? ''
    if (arg === '-o') rest.push(arg, ...args.slice(++i, i + 1))
    else if (arg === '-t') i++
    else if (arg === '-N') {
      return { kind: 'wrong', message: 'mount -N is not offered; use nsenter --mount=FILE mount' }
    } else if (!/^-[sfnv]+$/.test(arg)) rest.push(arg)
    else if (arg.includes('f')) return { kind: 'nothing' }
    else if (arg.includes('s')) sloppy = true
  }
  return translate(readWords(rest), env, sloppy)
}

export const aliasVersion = (version: string): string =>
  `${ALIAS}: version ${ALIAS_VERSION} (tsoverlay ${version})`

interface Words {
  foreground: boolean
  debug: boolean
  help: boolean
  version: boolean
  /** The values of `-o`; undefined if the last one has no value. */
  options: (string | undefined)[]
  directories: string[]
  unknown: string[]
}

const readWords = (args: readonly string[]): Words => {
  const words: Words = {
    foreground: false,
    debug: false,
    help: false,
    version: false,
    options: [],
    directories: [],
    unknown: [],
  }
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? ''
    if (arg === '--') {
      words.directories.push(...args.slice(i + 1))
      break
    }
    if (arg === '-o') words.options.push(args[++i])
    else if (arg.startsWith('-o')) words.options.push(arg.slice(2))
    else if (arg === '-f') words.foreground = true
    else if (arg === '-d' || arg === '--debug') words.debug = true
    else if (arg === '-h' || arg === '--help') words.help = true
    else if (arg === '-V' || arg === '--version') words.version = true
    else if (arg.startsWith('-') && arg !== '-') words.unknown.push(arg)
    else words.directories.push(arg)
  }
  // A single thread always owns the union, so `-s` changes nothing.
  words.unknown = words.unknown.filter(arg => arg !== '-s')
  return words
}

const translate = (
  words: Words,
  env: Readonly<Record<string, string | undefined>>,
  sloppy = false,
): Invocation => {
  const { directories } = words
  const mountpoint = directories.at(-1)
  if (mountpoint === undefined || mountpoint === '') {
    return { kind: 'wrong', message: 'the mountpoint is missing; it comes last' }
  }
  if (directories.length > 2) {
    return { kind: 'wrong', message: `too many arguments: ${directories.slice(1, -1).join(' ')}` }
  }
  // Later options override these.
  const options: string[] = []
  const source = directories.length === 2 ? directories[0] : undefined
  if (source !== undefined && source !== '') {
    options.push(`fsname=${source.replaceAll(/[\\,]/g, String.raw`\$&`)}`)
  }
  if (env['FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT'] !== undefined) options.push('whiteout=wh')
  for (const list of words.options) {
    if (list === undefined) return { kind: 'wrong', message: '-o: the mount options are missing' }
    options.push(list)
  }
  return {
    kind: 'run',
    args: [
      'mount',
      sloppy ? '--sloppy' : '--lenient',
      ...(words.foreground || words.debug ? ['-f'] : []),
      ...(words.debug ? ['--log-level', 'debug'] : []),
      ...options.flatMap(list => ['-o', list]),
      '--',
      mountpoint,
    ],
    notes: words.unknown.map(arg => `unknown argument ignored: ${arg}`),
  }
}

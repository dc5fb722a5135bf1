/** The file systems that are available on this machine. */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import * as os from 'node:os'
import { cli, findProgram, root } from '../run/environment.js'
import { overlayOptions, type System } from './system.js'

/** Options that affect the file systems and their mount commands. */
export interface Choice {
  peers: readonly string[]
  /** Additional mount options for tsoverlay; empty if there are none. */
  option: string
  /** Whether the process is root of a user namespace. */
  rootless: boolean
}

export const OWN = 'tsoverlay'
/**
 * The base of comparisons: the program that podman uses today if it can't use the kernel's
 * overlayfs.
 */
export const BASE = 'fuse-overlayfs'

/** The first line with a digit in the output of `--version`; null if the program is missing. */
const versionOf = (program: string): string | null => {
  const { error, stdout, stderr } = spawnSync(program, ['--version'], { encoding: 'utf8' })
  if (error !== undefined) return null
  return (
    `${stdout}\n${stderr}`
      .split('\n')
      .find(line => /\d/.test(line) && !/^(FUSE|fusermount|using)/.test(line)) ?? ''
  ).trim()
}

const kernel = ({ rootless }: Choice): System => ({
  name: 'kernel',
  kind: 'kernel',
  version: `overlayfs of Linux ${os.release()}`,
  // Trusted attributes can't be written in a user namespace.
  command: layers => [
    'mount',
    '-t',
    'overlay',
    'overlay',
    '-o',
    `${overlayOptions(layers)}${rootless ? ',userxattr' : ''}`,
    layers.mountpoint,
  ],
  mountProgram: null,
})

const own = ({ option }: Choice): System => ({
  name: OWN,
  kind: 'own',
  version: `${(JSON.parse(fs.readFileSync(`${root}/package.json`, 'utf8')) as { version: string }).version}, Node ${process.version}`,
  command: (layers, ownServer) => [
    cli,
    'mount',
    ...(ownServer ? ['--own-server'] : []),
    '-o',
    `${overlayOptions(layers)}${option === '' ? '' : `,${option}`}`,
    layers.mountpoint,
  ],
  mountProgram: cli,
})

const fuseOverlayfs = (version: string): System => ({
  name: BASE,
  kind: 'peer',
  version,
  command: layers => [BASE, '-o', overlayOptions(layers), layers.mountpoint],
  ...podmanTakes(BASE, BASE),
})

/** A mount program takes the command line of fuse-overlayfs. */
const podmanTakes = (program: string, command: string): Pick<System, 'mountProgram'> => {
  const path = findProgram(program)
  return path !== null &&
    /^\S+( -o lowerdir=\{lower\},upperdir=\{upper\},workdir=\{work\} \{mnt\})?$/.test(command)
    ? { mountProgram: path }
    : {}
}

/**
 * Parses a peer from the command line: `name=command`, with {lower} (joined with colons), {upper},
 * {work} and {mnt} for the directories. A command of one word takes the command line of
 * fuse-overlayfs.
 * @throws {Error} the syntax is wrong, or the program does not exist
 */
export const parsePeer = (text: string): System => {
  const [, name = '', said = ''] = /^([^=\s][^=]*)=(.*)$/s.exec(text) ?? []
  const usual = ' -o lowerdir={lower},upperdir={upper},workdir={work} {mnt}'
  const command = /^\S+$/.test(said) ? said + usual : said
  const words = command.split(/\s+/).filter(word => word !== '')
  const [program] = words
  if (program === undefined || !command.includes('{mnt}') || !command.includes('{lower}'))
    throw new Error(
      `--peer ${text}: write name=program, or name='command with {lower}, {upper}, {work} and {mnt}'`,
    )
  const version = versionOf(program)
  if (version === null) throw new Error(`--peer ${name}: ${program} can't be run`)
  return {
    name,
    kind: 'peer',
    version,
    command: layers =>
      words.map(word =>
        word
          .replaceAll('{lower}', layers.lowers.join(':'))
          .replaceAll('{upper}', layers.upper)
          .replaceAll('{work}', layers.work)
          .replaceAll('{mnt}', layers.mountpoint),
      ),
    ...podmanTakes(program, command),
  }
}

/**
 * All file systems, in the order of the report.
 * @throws {Error} a peer of the command line is invalid
 */
export const findSystems = (choice: Choice): System[] => {
  const found: System[] = []
  if (/\toverlay$/m.test(fs.readFileSync('/proc/filesystems', 'utf8'))) found.push(kernel(choice))
  const version = versionOf(BASE)
  if (version !== null) found.push(fuseOverlayfs(version))
  found.push(own(choice), ...choice.peers.map(parsePeer))
  const names = found.map(({ name }) => name)
  const double = names.find((name, n) => names.indexOf(name) !== n)
  if (double !== undefined) throw new Error(`--peer ${double}: there is one of this name already`)
  return found
}

/** The file systems that this machine has. */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import * as os from 'node:os'
import { cli, root } from '../run/environment.js'
import { overlayOptions, type Layers, type System } from './system.js'

/** Names of data modes; the same system is mounted by the program and, where requests are counted, by the library. */
export const MODES = ['passthrough', 'cached'] as const
export type Mode = (typeof MODES)[number]
export const ownName = (mode: Mode): string => `tsoverlay ${mode}`

/** The first line with a number in it of what a program says to `--version`; null where there is no such program. */
const versionOf = (program: string): string | null => {
  const { error, stdout, stderr } = spawnSync(program, ['--version'], { encoding: 'utf8' })
  if (error !== undefined) return null
  return (
    `${stdout}\n${stderr}`
      .split('\n')
      .find(line => /\d/.test(line) && !/^(FUSE|fusermount|using)/.test(line)) ?? ''
  ).trim()
}

/** In a user namespace nobody may write trusted attributes. */
const optionsOf = (layers: Layers, rootless: boolean): string =>
  `${overlayOptions(layers)}${rootless ? ',userxattr' : ''}`

const kernel = (rootless: boolean): System => ({
  name: 'kernel',
  kind: 'kernel',
  version: `overlayfs of Linux ${os.release()}`,
  command: layers => [
    'mount',
    '-t',
    'overlay',
    'overlay',
    '-o',
    optionsOf(layers, rootless),
    layers.mountpoint,
  ],
})

const own = (mode: Mode, rootless: boolean): System => ({
  name: ownName(mode),
  kind: 'own',
  version: `${(JSON.parse(fs.readFileSync(`${root}/package.json`, 'utf8')) as { version: string }).version}, Node ${process.version}`,
  command: layers => [
    cli,
    'mount',
    '-o',
    `${optionsOf(layers, rootless)},io=${mode}`,
    layers.mountpoint,
  ],
})

/** Files are opened without a message: beside the modes, since it tells some errors later. */
const noOpen = (rootless: boolean): System => ({
  ...own('cached', rootless),
  name: 'tsoverlay noopen',
  command: layers => [
    cli,
    'mount',
    '-o',
    `${optionsOf(layers, rootless)},io=cached,noopen`,
    layers.mountpoint,
  ],
})

const fuseOverlayfs = (version: string): System => ({
  name: 'fuse-overlayfs',
  kind: 'peer',
  version,
  command: layers => ['fuse-overlayfs', '-o', overlayOptions(layers), layers.mountpoint],
})

const unionfs = (version: string): System => ({
  name: 'unionfs-fuse',
  kind: 'peer',
  version,
  command: ({ lowers, upper, mountpoint }) => [
    'unionfs',
    '-o',
    'cow',
    [`${upper}=RW`, ...lowers.map(lower => `${lower}=RO`)].join(':'),
    mountpoint,
  ],
})

/**
 * A peer from the command line: `name=command`, where {lower} (joined with colons), {upper}, {work} and
 * {mnt} stand for the folders.
 * @throws {Error} it is not of this form, or there is no such program
 */
export const parsePeer = (text: string): System => {
  const [, name = '', command = ''] = /^([^=\s][^=]*)=(.*)$/s.exec(text) ?? []
  const words = command.split(/\s+/).filter(word => word !== '')
  const [program] = words
  if (program === undefined || !command.includes('{mnt}') || !command.includes('{lower}'))
    throw new Error(`--peer ${text}: write name='command with {lower}, {upper}, {work} and {mnt}'`)
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
  }
}

/** Passing a file through to the kernel takes a right that no user namespace gives. */
const modesOf = (rootless: boolean): readonly Mode[] => (rootless ? ['cached'] : MODES)

/**
 * All of them, the kernel's first: it is what the others are compared with.
 * @param rootless for a user namespace in which one is root
 * @throws {Error} a peer of the command line is wrong
 */
export const findSystems = (peers: readonly string[], rootless = false): System[] => {
  const found: System[] = []
  if (/\toverlay$/m.test(fs.readFileSync('/proc/filesystems', 'utf8'))) found.push(kernel(rootless))
  found.push(...modesOf(rootless).map(mode => own(mode, rootless)))
  found.push(noOpen(rootless))
  const overlay = versionOf('fuse-overlayfs')
  if (overlay !== null) found.push(fuseOverlayfs(overlay))
  const union = versionOf('unionfs')
  if (union !== null) found.push(unionfs(union))
  found.push(...peers.map(parsePeer))
  const names = found.map(({ name }) => name)
  const double = names.find((name, n) => names.indexOf(name) !== n)
  if (double !== undefined) throw new Error(`--peer ${double}: there is one of this name already`)
  return found
}

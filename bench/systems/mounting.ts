/**
 * Runs commands, mounts file systems with them, and unmounts them and ends all processes that the
 * commands have started.
 */

import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { EBUSY, MNT, umount } from '../measure/calls.js'
import { leaveToNode, signalServers, untilServersEnded } from '../measure/processes.js'
import { plainEnvironment } from '../run/environment.js'
import type { Layers, System } from './system.js'

const COMMAND_MS = 120_000
const BUSY_MS = 5_000
const END_MS = 20_000

export interface CommandOptions {
  cwd: string
  /** The file for the command's output. A daemon may keep it open. */
  log: string
  env?: NodeJS.ProcessEnv
}

/**
 * Runs a command to its end.
 * @returns its output
 * @throws {Error} it has failed
 */
export const run = (
  words: readonly string[],
  { cwd, log, env = {} }: CommandOptions,
): Promise<string> =>
  new Promise((resolve, reject) => {
    const [program = '', ...args] = words
    const fd = fs.openSync(log, 'w')
    const child = spawn(program, args, {
      cwd,
      // Newer versions of mount(8) pass options one by one with fsconfig(2), which limits each to
      // 256 bytes.
      env: { ...plainEnvironment(), LIBMOUNT_FORCE_MOUNT2: 'always', ...env },
      stdio: ['ignore', fd, fd],
    })
    leaveToNode(child.pid)
    fs.closeSync(fd)
    const timer = setTimeout(() => child.kill('SIGKILL'), COMMAND_MS)
    child.on('error', reject)
    child.on('exit', (status, signal) => {
      clearTimeout(timer)
      const said = fs.readFileSync(log, 'utf8').trim()
      if (status === 0) return resolve(said)
      const last = said.slice(said.lastIndexOf('\n') + 1)
      return reject(
        new Error(`${path.basename(program)}: ${signal ?? `status ${status}`}: ${last}`),
      )
    })
  })

/**
 * Mounts, and checks the mountpoint once: a daemon may report success before it serves.
 * @param directory the working directory of the command; the lower layers' paths are relative to it
 */
export const mount = async (
  system: System,
  layers: Layers,
  directory: string,
  env: NodeJS.ProcessEnv,
  ownServer = false,
): Promise<void> => {
  const { mountpoint } = layers
  const { dev: above } = await fs.promises.lstat(path.dirname(mountpoint))
  await run(system.command(layers, ownServer), { cwd: directory, log: `${mountpoint}.log`, env })
  const { dev } = await fs.promises.lstat(mountpoint)
  if (dev === above) throw new Error('the command has mounted nothing')
}

export const unmount = async (mountpoint: string): Promise<void> => {
  const before = performance.now()
  for (let result; (result = umount(mountpoint)) !== 0;) {
    if (result !== -EBUSY || performance.now() - before > BUSY_MS) {
      umount(mountpoint, MNT.FORCE)
      umount(mountpoint, MNT.DETACH)
      throw new Error(`umount: errno ${-result}`)
    }
    await pause(5)
  }
}

/**
 * Ends the servers. Most end with their mounts; a resident server waits for further mounts until it
 * gets a signal.
 */
export const endServers = async (
  system: System,
  client: number | undefined,
  isServer?: RegExp,
): Promise<void> => {
  if (system.kind === 'own') signalServers('SIGTERM', client, isServer)
  if (await untilServersEnded(client, END_MS)) return
  signalServers('SIGKILL', client)
  if (!(await untilServersEnded(client, END_MS))) throw new Error('a server does not end')
}

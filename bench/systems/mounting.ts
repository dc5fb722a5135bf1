/** Mounts a file system by its command, and takes it away again with everything the command has started. */

import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { EBUSY, MNT, umount } from '../measure/calls.js'
import { kill, MARK, marked, waitForEnd } from '../measure/processes.js'
import { plainEnvironment } from '../run/environment.js'
import type { Layers, System } from './system.js'

const MOUNT_MS = 60_000
const BUSY_MS = 5_000
const END_MS = 20_000

/** A union that is mounted. */
export interface Mounted {
  mountpoint: string
  /** The processes that serve it. */
  servers: number[]
  /** From the start of the command until the mountpoint has answered. */
  mountMs: number
}

/** Runs a command to its end; what it says on standard error goes to a file, which a daemon may keep open. */
const run = (words: readonly string[], cwd: string, mark: string, log: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const [program = '', ...args] = words
    const fd = fs.openSync(log, 'w')
    // Newer versions of mount(8) pass options one by one, each of them shorter than 256 bytes.
    const env = { ...plainEnvironment(), [MARK]: mark, LIBMOUNT_FORCE_MOUNT2: 'always' }
    const child = spawn(program, args, { cwd, env, stdio: ['ignore', 'ignore', fd] })
    fs.closeSync(fd)
    const timer = setTimeout(() => child.kill('SIGKILL'), MOUNT_MS)
    child.on('error', reject)
    child.on('exit', (status, signal) => {
      clearTimeout(timer)
      if (status === 0) return resolve()
      const [said = ''] = fs.readFileSync(log, 'utf8').trim().split('\n')
      return reject(new Error(`the mount failed (${signal ?? `status ${status}`}): ${said}`))
    })
  })

/**
 * Mounts.
 * @param folder where the command runs, and where the lower layers' relative paths start
 * @param mark a word that no other mount has
 */
export const mountSystem = async (
  system: System,
  layers: Layers,
  folder: string,
  mark: string,
): Promise<Mounted> => {
  const { mountpoint } = layers
  const above = fs.lstatSync(path.dirname(mountpoint)).dev
  const before = performance.now()
  try {
    await run(system.command(layers), folder, mark, `${mountpoint}.log`)
    // The first answer: a daemon may say that it is ready before it serves.
    const { dev } = await fs.promises.lstat(mountpoint)
    const mountMs = performance.now() - before
    if (dev === above) throw new Error('the command has mounted nothing')
    return { mountpoint, servers: marked(mark), mountMs }
  } catch (error) {
    await endServers(marked(mark), 0)
    throw error
  }
}

/** Unmounts and waits until the servers have ended. Returns how long it took, in milliseconds. */
export const unmountSystem = async ({ mountpoint, servers }: Mounted): Promise<number> => {
  const before = performance.now()
  for (let result; (result = umount(mountpoint)) !== 0;) {
    if (result !== -EBUSY || performance.now() - before > BUSY_MS) {
      umount(mountpoint, MNT.FORCE)
      umount(mountpoint, MNT.DETACH)
      await endServers(servers, 1000)
      throw new Error(`umount: errno ${-result}`)
    }
    await pause(5)
  }
  await endServers(servers, END_MS)
  return performance.now() - before
}

/** Gives servers some time, then kills what is left of them. */
const endServers = async (servers: readonly number[], ms: number): Promise<void> => {
  for (const pid of await waitForEnd(servers, ms)) kill(pid)
}

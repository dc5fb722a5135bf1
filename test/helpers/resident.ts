/**
 * Resident servers for tests, each with a name of its own. They are ended at the end of the test.
 */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import * as fs from 'node:fs'

import type { Test } from 'tap'

import { markersOf, type PublishedMarker } from '../../src/host/markers.js'
import { startOf } from '../../src/resident/processes.js'
import {
  isAlive,
  mountedOn,
  outcomeOf,
  PROGRAM,
  waitUntil,
  type Outcome,
  type Scratch,
} from './mount.js'

let count = 0

export interface Resident {
  /** The value of TSOVERLAY_SERVER in the environment of its clients. */
  name: string
  /** `/run/NAME`. */
  top: string
  env: NodeJS.ProcessEnv
  /** Starts the program. Its mounts go to this server, if the server accepts them. */
  start(args: readonly string[], options?: ClientOptions): ChildProcess
  /** Starts the program and waits for its end. */
  run(...args: string[]): Promise<Outcome>
  /** The process id that is registered, or 0. */
  pid(): number
  /** The server's directory, of which there is exactly one. */
  directory(): string
  /** The mountpoints in the server's markers. */
  mounts(): string[]
  /** Waits until a server other than `than` has registered. */
  registered(than?: number): Promise<number>
}

export interface ClientOptions {
  cwd?: string
  env?: NodeJS.ProcessEnv
  /** A command prefix that runs the program. */
  through?: readonly string[]
  /** Replaces the program. */
  program?: string
}

/** A pipe, and the process that has it open. */
export interface Impersonation {
  fd: number
  close: () => void
}

/**
 * Makes clients take a process for the server. No process reads the requests.
 * @param start the start time of that process
 */
export const impersonateServer = (
  directory: string,
  pid: number,
  start = startOf(pid),
): Impersonation => {
  fs.mkdirSync(directory, { recursive: true, mode: 0o700 })
  const fifo = `${directory}/requests`
  fs.rmSync(fifo, { force: true })
  spawnSync('mkfifo', ['-m', '666', fifo])
  const fd = fs.openSync(fifo, fs.constants.O_RDWR | fs.constants.O_NONBLOCK)
  const holder = [process.pid, startOf('self'), `/proc/${process.pid}/fd/${fd}`]
  fs.writeFileSync(`${directory}/pid`, [pid, start, 'stays', ...holder, ''].join('\n'))
  return { fd, close: () => fs.closeSync(fd) }
}

/** The pipe that clients open. */
export const pipeIn = (directory: string): string =>
  fs.readFileSync(`${directory}/pid`, 'latin1').split('\n')[5] ?? ''

const directoriesIn = (top: string): string[] =>
  fs.existsSync(top) ? fs.readdirSync(top).map(name => `${top}/${name}`) : []

const pidIn = (directory: string): number => {
  try {
    return Number(fs.readFileSync(`${directory}/pid`, 'latin1').split('\n')[0])
  } catch {
    return 0
  }
}

/**
 * Call it before creating the directories of the test, so that the mounts are gone when the
 * directories are removed.
 */
export const resident = (t: Test, where: Scratch): Resident => {
  const name = `tsoverlay-test-${process.pid}-${count++}`
  const top = `/run/${name}`
  const { NODE_OPTIONS: _, ...plain } = process.env
  const env = { ...plain, TSOVERLAY_SERVER: name }
  where.before(async () => {
    for (const directory of directoriesIn(top)) {
      const pid = pidIn(directory)
      if (isAlive(pid)) spawnSync('kill', ['-CONT', String(pid)])
      if (isAlive(pid)) spawnSync('kill', [String(pid)])
      await waitUntil('the end of the server', () => !isAlive(pid))
    }
    const left = directoriesIn(top).flatMap(directory => [directory, ...fs.readdirSync(directory)])
    if (left.length > 0) t.fail(`left in ${top}: ${left.join(' ')}`)
    fs.rmSync(top, { recursive: true, force: true })
  })
  const own: Resident = {
    name,
    top,
    env,
    start: (args, { cwd, env: more = {}, through = [], program = PROGRAM } = {}) => {
      const [command = '', ...rest] = [...through, program, ...args]
      return spawn(command, rest, {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...env, ...more },
        ...(cwd === undefined ? {} : { cwd }),
      })
    },
    run: (...args) => outcomeOf(own.start(args)),
    directory: () => directoriesIn(top).find(directory => !/\/\.[^/]*$/.test(directory)) ?? '',
    pid: () => pidIn(own.directory()),
    mounts: () => mountsOf(own.pid()),
    registered: async (than = 0) => {
      let found = 0
      // The directory is read once for each check: the file is missing for a moment while another
      // server replaces this one.
      await waitUntil('a registered server', () => {
        found = own.pid()
        return found > 0 && found !== than
      })
      return found
    },
  }
  return own
}

const mountsOf = (pid: number): string[] =>
  markersOf(pid)
    .map(({ mountpoint }) => mountpoint)
    .toSorted()

/** The processes with a marker for a mount on a directory. */
export const servedBy = (mountpoint: string): number[] =>
  fs
    .readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid =>
      markersOf(pid).some((marker: PublishedMarker) => marker.mountpoint === mountpoint),
    )

export interface Layers {
  lower: string
  upper: string
  work: string
  merged: string
  options: string
}

/**
 * Creates the directories of a union below a directory. The lower layer has a file `which` with the
 * union's name.
 */
export const layersIn = (where: Scratch, name: string): Layers => {
  const top = `${where.top}/${name}`
  const [lower, upper, work, merged] = ['l', 'u', 'w', 'm'].map(part => `${top}/${part}`) as [
    string,
    string,
    string,
    string,
  ]
  for (const directory of [lower, upper, work, merged]) fs.mkdirSync(directory, { recursive: true })
  fs.writeFileSync(`${lower}/which`, name)
  where.before(() => {
    while (mountedOn(merged).length > 0) {
      if (spawnSync('umount', [merged]).status !== 0) spawnSync('umount', ['-l', merged])
    }
  })
  return {
    lower,
    upper,
    work,
    merged,
    options: `lowerdir=${lower},upperdir=${upper},workdir=${work}`,
  }
}

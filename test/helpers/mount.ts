/**
 * Mounts for tests: directories of the test's own, a server in a child process, and a cleanup that
 * leaves nothing behind. At the end the server's log is read, and a suspicious word fails the test.
 */

import { spawn, spawnSync, type ChildProcess, type SpawnOptions } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'

import type { Test, TestOpts } from 'tap'
import { isNative, notNative } from './transport.js'

/** The built program, for Node. */
export const CLI = fileURLToPath(new URL('../../dist/cli/main.cjs', import.meta.url))
/** The built program: what users run. */
export const PROGRAM = fileURLToPath(new URL('../../dist/cli/tsoverlay', import.meta.url))

// By default each server of a test ends with its mount and asks no resident server. A test that
// needs resident servers sets a name for them.
process.env['TSOVERLAY_SERVER'] ??= ''

export const isRoot = process.geteuid?.() === 0

/** Why real mounts can't be made here, or false. */
export const skipMounts: string | false = !isRoot
  ? 'needs root'
  : !fs.existsSync('/dev/fuse')
    ? 'needs /dev/fuse'
    : !fs.existsSync(CLI)
      ? 'needs the built program: npm run build'
      : false

/** Runs Node as users do: without the instrumentation that tap adds to all child processes. */
export const NODE = ['/usr/bin/env', '-u', 'NODE_OPTIONS', process.execPath] as const
const [ENV, ...ENV_ARGS] = NODE

/** Starts a Node program. The process id is that of the program itself. */
export const spawnNode = (args: readonly string[], options: SpawnOptions = {}): ChildProcess =>
  spawn(ENV, [...ENV_ARGS, ...withTransport(args)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
  })

/** Starts a program as users do, by its path. */
export const spawnPlain = (
  program: string,
  args: readonly string[],
  options: SpawnOptions = {},
): ChildProcess =>
  spawn(ENV, ['-u', 'NODE_OPTIONS', program, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
  })

/** Inserts the tested transport after the word `mount`. */
const withTransport = (args: readonly string[]): readonly string[] => {
  const at = args.indexOf(CLI) + 1
  if (!isNative() || at === 0 || args[at] !== 'mount') return args
  return [...args.slice(0, at + 1), '--transport', 'fuse-native', ...args.slice(at + 1)]
}

/**
 * Shell code for a new mount namespace: detaches its copies of other tests' mounts, which the
 * namespace would otherwise keep alive.
 */
export const DETACH_COPIES = `
  findmnt -rn -o TARGET | grep /tsoverlay- | tac | while read -r point; do
    umount -l "$point" 2>/dev/null || true
  done
`

/** The time limit for a single condition on a busy machine, in milliseconds. */
const WAIT_MS = 30_000

export const waitUntil = async (what: string, condition: () => boolean): Promise<void> => {
  for (const end = Date.now() + WAIT_MS; !condition();) {
    if (Date.now() > end) throw new Error(`waited in vain: ${what}`)
    await new Promise(done => setTimeout(done, 10))
  }
}

/** The lines of /proc/self/mountinfo that contain a directory, without their ids. */
export const mountTable = (directory: string): string[] =>
  fs
    .readFileSync('/proc/self/mountinfo', 'utf8')
    .trimEnd()
    .split('\n')
    .map(line => line.replace(/^\d+ \d+ /, ''))
    .filter(line => line.includes(directory))

/** The types of the mounts on a path, bottom first. */
export const mountedOn = (path: string): string[] =>
  mountTable(path)
    .filter(line => line.split(' ')[2] === path)
    .map(line => line.split(' - ')[1]?.split(' ')[0] ?? '')

export const isAlive = (pid: number): boolean => {
  try {
    return !/^State:\s*Z/m.test(fs.readFileSync(`/proc/${pid}/status`, 'latin1'))
  } catch {
    return false
  }
}

/** @returns undefined if the path does not exist any more */
const statOf = (path: string): fs.BigIntStats | undefined => {
  try {
    return fs.statSync(path, { bigint: true })
  } catch {
    return undefined
  }
}

const isSame = (one: fs.BigIntStats, other: fs.BigIntStats | undefined): boolean =>
  one.dev === other?.dev && one.ino === other.ino

/**
 * The number of files that a process has open, through any mount, and that are below a directory or
 * are deleted files of its file system.
 */
export const openIn = (pid: number, directory: string): number => {
  const device = statOf(directory)?.dev
  const below = fs
    .readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map(name => statOf(`${directory}/${name}`))
  return fs
    .readdirSync(`/proc/${pid}/fd`)
    .map(fd => statOf(`/proc/${pid}/fd/${fd}`))
    .filter(
      open =>
        open !== undefined &&
        ((open.nlink === 0n && open.dev === device) || below.some(file => isSame(open, file))),
    ).length
}

export interface Scratch {
  /** A directory of the test's own, without symlinks in its path. */
  top: string
  /** Registers a function to run before the directory is removed; the last one runs first. */
  before(end: () => void | Promise<void>): void
}

/** The cleanup functions of a test. */
const cleanups = new WeakMap<Test, (() => void | Promise<void>)[]>()

/**
 * A subtest that cleans up while assertions still count; a teardown comes too late for that. So
 * failures in the cleanup of `scratch` and `serve` belong to the test.
 */
export const test = (
  t: Test,
  name: string,
  ...rest: [body: (t: Test) => Promise<void>] | [TestOpts, body: (t: Test) => Promise<void>]
) => {
  const body = rest.at(-1) as (t: Test) => Promise<void>
  const given = rest.length === 2 ? rest[0] : {}
  const skip = notNative(name)
  const options = skip === false ? given : { ...given, skip }
  return t.test(name, options, async own => {
    own.teardown(() => cleanUp(own)) // for a body that was aborted
    try {
      await body(own)
    } finally {
      await cleanUp(own)
    }
  })
}

const cleanUp = async (t: Test): Promise<void> => {
  for (let end; (end = cleanups.get(t)?.pop()) !== undefined;) await end()
}

/**
 * A directory in TMPDIR. It is removed at the end of the test, after the functions that `before`
 * has registered.
 */
export const scratch = (t: Test, name = 'test'): Scratch => {
  const top = fs.realpathSync(fs.mkdtempSync(`${tmpdir()}/tsoverlay-${name}-`))
  const own = cleanups.get(t) ?? []
  cleanups.set(t, own)
  own.push(() => {
    for (const line of mountTable(top).toReversed()) {
      const point = line.split(' ')[2]
      if (point === undefined || !point.startsWith(`${top}/`)) continue
      t.fail(`left mounted: ${line}`)
      spawnSync('umount', ['-l', point])
    }
    // rm gets pipes of its own: with the test's standard output, the end of the test would wait for
    // it.
    const { stderr } = spawnSync('rm', ['-rf', '--one-file-system', top], { encoding: 'utf8' })
    if (stderr !== '') t.fail(stderr)
  })
  return { top, before: end => void own.push(end) }
}

/** The directories of a union. */
export interface Directories extends Scratch {
  lower: string
  upper: string
  work: string
  /** The mountpoint. */
  merged: string
  /** The value of -o for all of them. */
  options: string
}

export const directories = (t: Test, name?: string): Directories => {
  const own = scratch(t, name)
  const [lower, upper, work, merged] = ['lower', 'upper', 'work', 'merged'].map(
    part => `${own.top}/${part}`,
  ) as [string, string, string, string]
  for (const directory of [lower, upper, work, merged]) fs.mkdirSync(directory)
  return {
    ...own,
    lower,
    upper,
    work,
    merged,
    options: `lowerdir=${lower},upperdir=${upper},workdir=${work}`,
  }
}

export interface Outcome {
  status: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

/** Runs the program to its end. */
export const tsoverlay = async (...args: string[]): Promise<Outcome> =>
  outcomeOf(spawnNode([CLI, ...args]))

export const outcomeOf = async (child: ChildProcess): Promise<Outcome> => {
  let stdout = ''
  let stderr = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
  return { status, signal, stdout, stderr }
}

/** Words that a server logs only if it has an error. */
const suspicious =
  /"level":[56]0|uncaught|unhandled|TypeError|RangeError|ReferenceError|assert|EBADF|malformed/i

/** Keys that occur more than once in a JSON line. */
export const duplicateKeys = (line: string): string[] => {
  if (!line.startsWith('{')) return []
  const keys: string[] = []
  let depth = 0
  let text = ''
  for (const [token] of line.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\]:]/g)) {
    if (token === '{' || token === '[') depth++
    else if (token === '}' || token === ']') depth--
    else if (token === ':' && depth === 1) keys.push(text)
    text = token
  }
  return keys.filter((key, i) => keys.indexOf(key) !== i).map(key => JSON.parse(key) as string)
}

export interface Served {
  mountpoint: string
  pid: number
  process: ChildProcess
  /** The server's log so far, as JSON lines. */
  log(): string
  /** Unmounts and waits for the server's end. */
  unmount(): Promise<void>
  /** Resolves when the server has ended, for any reason. */
  ended: Promise<Outcome>
  /** Suspicious lines that are expected in the log. */
  expect(words: RegExp): void
}

/** The counters of a server, which it logs on SIGUSR1. */
export const counters = async (server: Served): Promise<Record<string, number>> => {
  // Only complete lines count.
  const lines = (): string[] =>
    server
      .log()
      .split('\n')
      .slice(0, -1)
      .filter(line => line.includes('"counters"'))
  const before = lines().length
  server.process.kill('SIGUSR1')
  await waitUntil('counters in the log', () => lines().length > before)
  return JSON.parse(lines().at(-1) ?? '{}') as Record<string, number>
}

/**
 * Starts a server in a child process, in the foreground, and waits until the mount is live. At the
 * end of the test it is unmounted, and its log is checked.
 */
export const serve = async (
  t: Test,
  where: Pick<Directories, 'merged' | 'options' | 'top' | 'before'>,
  ...args: string[]
): Promise<Served> => {
  const file = `${where.top}/log.${Date.now()}.${Math.random().toString(36).slice(2)}`
  const mount = [CLI, 'mount', '-f', '--log-file', file, '-o', where.options]
  const child = spawnNode([...mount, ...args, where.merged])
  const before = mountedOn(where.merged).length
  const ended = outcomeOf(child)
  const end: { outcome?: Outcome } = {}
  void ended.then(outcome => (end.outcome = outcome))
  let expected: RegExp | undefined

  const read = (): string => (fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '')
  const stop = async (): Promise<void> => {
    if (end.outcome === undefined && mountedOn(where.merged).length > before) {
      if (spawnSync('umount', [where.merged]).status !== 0) {
        t.comment(`busy at the end: ${where.merged}`)
        spawnSync('umount', ['-l', where.merged])
      }
    }
    const timer = setTimeout(() => {
      // A mount namespace that was created while the mount existed has a copy of it. That is no
      // error of the server.
      const holders = holdersOf(where.merged)
      if (holders.length > 0) t.comment(`held by the namespace of ${holders.join(', ')}`)
      else t.fail('the server did not end after its mount')
      child.kill('SIGKILL')
    }, WAIT_MS)
    await ended
    clearTimeout(timer)
  }
  where.before(async () => {
    await stop()
    for (const line of `${read()}${end.outcome?.stderr ?? ''}`.split('\n')) {
      if (suspicious.test(line) && expected?.test(line) !== true) t.fail(`in the log: ${line}`)
      const twice = duplicateKeys(line)
      if (twice.length > 0) t.fail(`twice in a line of the log: ${twice.join()}: ${line}`)
    }
  })

  await waitUntil(
    `mount on ${where.merged}`,
    () => end.outcome !== undefined || mountedOn(where.merged).length > before,
  )
  if (end.outcome !== undefined) throw new Error(`the server ended: ${end.outcome.stderr}`)
  if (isNative())
    await waitUntil('the word of the package', () => read().includes('fuse-native, with'))
  return {
    mountpoint: where.merged,
    pid: child.pid ?? 0,
    process: child,
    log: read,
    unmount: stop,
    ended,
    expect: words => {
      expected = words
    },
  }
}

/** The process ids of background servers whose title names this mountpoint. */
export const serversOf = (mountpoint: string): number[] =>
  fs
    .readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(pid => {
      try {
        const title = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
        return title.startsWith(`tsoverlay mount ${mountpoint}`)
      } catch {
        return false
      }
    })

/** The processes whose mount namespaces contain a mount on a path. */
const holdersOf = (path: string): string[] =>
  fs
    .readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .filter(pid => {
      try {
        return fs.readFileSync(`/proc/${pid}/mountinfo`, 'utf8').includes(` ${path} `)
      } catch {
        return false
      }
    })

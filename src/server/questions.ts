/**
 * What a process tells others about its mounts when they ask: counters. Who asks writes a line to a
 * pipe of the process, which they open by /proc/PID/fd: `TOKEN`, and the device of a mount, or
 * nothing for all; for one mount also a path, in base64url. The answer is an open file in memory
 * whose name has the token, and whose text is JSON: by device. So the kernel's rules for
 * /proc/PID/fd say who may ask (the same user, and root), and nothing is left when the process
 * ends, however that does. ask.ts asks.
 */

import { writeSync } from 'node:fs'
import { Socket } from 'node:net'

import type { ByteString } from '../overlay/ops.js'
import type { Answer } from '../overlay/namei/which.js'
import { close } from '../sys/io.js'
import { namedDescriptor } from '../sys/pidfd.js'
import { pipe } from '../sys/splice.js'

export type Counters = Record<string, number>

/** By the devices of the mounts. */
export type Answers<T = Counters> = Record<string, T>

/** What can be asked about a mount. */
export interface Asked {
  stats: () => Promise<Counters>
  /** Which layers serve a path; its names from the root on. */
  explain: (names: ByteString[]) => Promise<Answer | undefined>
}

/** The name of the file with an answer. */
export const answerName = (token: string): string => `tsoverlay-answer:${token}`

/** A line of who asks. */
const QUESTION = /^([0-9a-f]{16,64})(?: ([0-9]+:[0-9]+)(?: ([A-Za-z0-9_-]+))?)?$/
/** PIPE_BUF: up to there a line is written in one piece. */
export const LINE_MAX = 4096

/** How long an answer is there. */
const ANSWER_MS = 2000
/** How many are there at a time, at most. */
const MOST = 32
/** A thread may be busy for longer: then nothing is told of its mount. */
const PATIENCE_MS = 500

interface Pipe {
  into: number
  input: Socket
}

const mounts = new Map<string, Asked>()
const answers = new Map<number, NodeJS.Timeout>()
let open: Pipe | undefined

export interface Answering {
  /** The number of the pipe's descriptor; -1: there is none. */
  fd: number
  /** To be called when the mount has ended. */
  end: () => void
}

/**
 * Answers questions about a mount until it has ended.
 * @param device as mountinfo names it
 */
export const answerFor = (device: string, asked: Asked): Answering => {
  mounts.set(device, asked)
  open ??= listen()
  const end = (): void => {
    if (mounts.get(device) === asked) mounts.delete(device)
    if (mounts.size > 0) return
    stop()
  }
  return { fd: open?.into ?? -1, end }
}

/** A process that has no descriptor left goes without. */
const listen = (): Pipe | undefined => {
  const ends = pipe()
  if (typeof ends === 'number') return undefined
  const [from, into] = ends
  let rest = ''
  // The process has the other end open as well: so it never comes to an end.
  const input = new Socket({ fd: from, readable: true, writable: false })
  input.setEncoding('latin1')
  input.on('data', (text: string) => {
    const lines = `${rest}${text}`.split('\n')
    rest = lines.pop()?.slice(-LINE_MAX) ?? ''
    for (const line of lines) void hear(line)
  })
  input.on('error', () => {}) // then nobody can ask
  input.unref()
  return { into, input }
}

const stop = (): void => {
  if (open === undefined) return
  open.input.destroy()
  close(open.into)
  open = undefined
  for (const [fd, timer] of answers) {
    clearTimeout(timer)
    close(fd)
  }
  answers.clear()
}

const hear = async (line: string): Promise<void> => {
  const [, token, device, path] = QUESTION.exec(line) ?? []
  if (token === undefined || answers.size >= MOST) return
  const asked = [...mounts].filter(([one]) => device === undefined || one === device)
  const told: Answers<unknown> = {}
  await Promise.all(
    asked.map(async ([one, { stats, explain }]) => {
      const answer = await inTime<unknown>(path === undefined ? stats() : explain(namesOf(path)))
      if (answer !== undefined) told[one] = answer
    }),
  )
  if (open === undefined || answers.size >= MOST) return
  const fd = namedDescriptor(answerName(token))
  if (fd < 0) return
  try {
    writeSync(fd, JSON.stringify(told))
  } catch {
    // then it is no JSON, and nobody reads it
  }
  const timer = setTimeout(() => {
    answers.delete(fd)
    close(fd)
  }, ANSWER_MS)
  timer.unref()
  answers.set(fd, timer)
}

const namesOf = (path: string): ByteString[] =>
  Buffer.from(path, 'base64url')
    .latin1Slice()
    .split('/')
    .filter(name => name !== '' && name !== '.' && name !== '..')

/** Undefined: it takes too long, or has failed. */
const inTime = <T>(answer: Promise<T>): Promise<T | undefined> =>
  new Promise(resolve => {
    const timer = setTimeout(resolve, PATIENCE_MS, undefined)
    timer.unref()
    answer
      .then(resolve, () => resolve(undefined))
      .finally(() => clearTimeout(timer))
      .catch(() => {})
  })

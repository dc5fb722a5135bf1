/**
 * Answers questions of other processes about the mounts of this process. A question is one line in
 * a pipe of this process, which the asker opens through /proc/PID/fd: `TOKEN`, and optionally the
 * device of a mount (otherwise all mounts) and a path of that mount in base64url. Without a path
 * the question is for counters. The answer is a memfd whose name contains the token. Its content is
 * JSON, keyed by device. So the kernel's rules for /proc/PID/fd decide which processes may ask (the
 * same user, and root). Nothing is left behind when this process ends, in any way. ask.ts is the
 * other side.
 */

import { writeSync } from 'node:fs'
import { Socket } from 'node:net'

import type { ByteString } from '../overlay/ops.js'
import type { Answer } from '../overlay/namei/which.js'
import { close } from '../sys/io.js'
import { namedDescriptor } from '../sys/pidfd.js'
import { pipe } from '../sys/splice.js'

export type Counters = Record<string, number>

/** Keyed by the device of the mount. */
export type Answers<T = Counters> = Record<string, T>

/** The questions about a mount. */
export interface QuestionHandlers {
  stats: () => Promise<Counters>
  /** Which layers serve a path, given as names from the mount's root. */
  explain: (names: ByteString[]) => Promise<Answer | undefined>
}

/** The name of the memfd with an answer. */
export const answerName = (token: string): string => `tsoverlay-answer:${token}`

/** The format of a question. */
const QUESTION = /^([0-9a-f]{16,64})(?: ([0-9]+:[0-9]+)(?: ([A-Za-z0-9_-]+))?)?$/
/** PIPE_BUF: a write up to this size is atomic. */
export const LINE_MAX = 4096

/** How long an answer is kept. */
const KEEP_ANSWER_MS = 2000
/** The limit of answers that are kept at a time. */
const MAX_ANSWERS = 32
/** A union's thread that is busy for longer gives no answer. */
const TIMEOUT_MS = 500

interface Pipe {
  writeEnd: number
  input: Socket
}

const mounts = new Map<string, QuestionHandlers>()
const answers = new Map<number, NodeJS.Timeout>()
let open: Pipe | undefined

export interface Answering {
  /** The write end of the pipe; -1 if there is none. */
  fd: number
  /** Call it when the mount has ended. */
  end: () => void
}

/**
 * Answers questions about a mount until it has ended.
 * @param device as mountinfo shows it
 */
export const answerFor = (device: string, handlers: QuestionHandlers): Answering => {
  mounts.set(device, handlers)
  open ??= listen()
  const end = (): void => {
    if (mounts.get(device) === handlers) mounts.delete(device)
    if (mounts.size > 0) return
    stop()
  }
  return { fd: open?.writeEnd ?? -1, end }
}

/** @returns undefined if no descriptor is free; then no questions are answered */
const listen = (): Pipe | undefined => {
  const ends = pipe()
  if (typeof ends === 'number') return undefined
  const [from, into] = ends
  let rest = ''
  // This process keeps the write end open, so the read end never reaches the end of the file.
  const input = new Socket({ fd: from, readable: true, writable: false })
  input.setEncoding('latin1')
  input.on('data', (text: string) => {
    const lines = `${rest}${text}`.split('\n')
    rest = lines.pop()?.slice(-LINE_MAX) ?? ''
    for (const line of lines) void handleLine(line)
  })
  input.on('error', () => {}) // no process can ask after that
  input.unref()
  return { writeEnd: into, input }
}

const stop = (): void => {
  if (open === undefined) return
  open.input.destroy()
  close(open.writeEnd)
  open = undefined
  for (const [fd, timer] of answers) {
    clearTimeout(timer)
    close(fd)
  }
  answers.clear()
}

const handleLine = async (line: string): Promise<void> => {
  const [, token, device, path] = QUESTION.exec(line) ?? []
  if (token === undefined || answers.size >= MAX_ANSWERS) return
  const asked = [...mounts].filter(([one]) => device === undefined || one === device)
  const collected: Answers<unknown> = {}
  await Promise.all(
    asked.map(async ([one, { stats, explain }]) => {
      const answer = await withTimeout<unknown>(
        path === undefined ? stats() : explain(namesOf(path)),
      )
      if (answer !== undefined) collected[one] = answer
    }),
  )
  if (open === undefined || answers.size >= MAX_ANSWERS) return
  const fd = namedDescriptor(answerName(token))
  if (fd < 0) return
  try {
    writeSync(fd, JSON.stringify(collected))
  } catch {
    // the content is incomplete JSON, which the asker ignores
  }
  const timer = setTimeout(() => {
    answers.delete(fd)
    close(fd)
  }, KEEP_ANSWER_MS)
  timer.unref()
  answers.set(fd, timer)
}

const namesOf = (path: string): ByteString[] =>
  Buffer.from(path, 'base64url')
    .latin1Slice()
    .split('/')
    .filter(name => name !== '' && name !== '.' && name !== '..')

/** @returns undefined if the answer takes too long or has failed */
const withTimeout = <T>(answer: Promise<T>): Promise<T | undefined> =>
  new Promise(resolve => {
    const timer = setTimeout(resolve, TIMEOUT_MS, undefined)
    timer.unref()
    answer
      .then(resolve, () => resolve(undefined))
      .finally(() => clearTimeout(timer))
      .catch(() => {})
  })

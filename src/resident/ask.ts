/**
 * Asks a process about its mounts: questions.ts says how. Whatever is in the way, the answer is
 * only missing.
 */

import { randomBytes } from 'node:crypto'

import type { Answer } from '../overlay/namei/which.js'
import { descriptorsOf, readDescriptor, tellPipe } from '../sys/descriptors.js'
import { answerName, LINE_MAX, type Answers, type Counters } from '../server/questions.js'

/** A server that is stopped, or dead, answers nobody. */
const PATIENCE_MS = 1000
const POLL_MS = 2

/**
 * What a process tells.
 * @param fd which of its descriptors is the pipe, as it says itself
 * @param device of the mount; else of all
 */
export const ask = (
  pid: number,
  fd: number | undefined,
  device?: string,
): Promise<Answers | undefined> => put<Counters>(pid, fd, device === undefined ? [] : [device])

/**
 * Which layers of a mount serve a path, which begins at its root. Undefined also where the path is
 * too long to ask for.
 */
export const askWhich = async (
  pid: number,
  fd: number | undefined,
  device: string,
  path: string,
): Promise<Answer | undefined> => {
  const words = [device, Buffer.from(path).toString('base64url')]
  return (await put<Answer>(pid, fd, words))?.[device]
}

const put = async <T>(
  pid: number,
  fd: number | undefined,
  words: readonly string[],
): Promise<Answers<T> | undefined> => {
  const token = randomBytes(12).toString('hex')
  if (fd === undefined || fd < 0) return undefined
  const line = `${[token, ...words].join(' ')}\n`
  if (line.length > LINE_MAX || !tellPipe(pid, fd, line)) return undefined
  for (const until = Date.now() + PATIENCE_MS; Date.now() < until;) {
    const answer = answerOf<T>(pid, token)
    if (answer !== undefined) return answer
    await new Promise(done => setTimeout(done, POLL_MS))
  }
  return undefined
}

/** Undefined: it is not there yet, or not written to its end. */
const answerOf = <T>(pid: number, token: string): Answers<T> | undefined => {
  const name = `/memfd:${answerName(token)} `
  const fd = descriptorsOf(pid).find(([, target]) => target.startsWith(name))?.[0]
  if (fd === undefined) return undefined
  try {
    return JSON.parse(readDescriptor(pid, fd) ?? '') as Answers<T>
  } catch {
    return undefined
  }
}

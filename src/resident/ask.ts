/**
 * Asks a server about its mounts; questions.ts defines the protocol. Every failure results in a
 * missing answer.
 */

import { randomBytes } from 'node:crypto'

import type { Answer } from '../overlay/namei/which.js'
import { descriptorsOf, readDescriptor, writeToPipe } from '../sys/descriptors.js'
import { answerName, LINE_MAX, type Answers, type Counters } from '../server/questions.js'

/** A server that is stopped or dead never answers. */
const TIMEOUT_MS = 1000
const POLL_MS = 2

/**
 * Asks for counters.
 * @param fd the descriptor of the question pipe in the server, as the marker names it
 * @param device asks for one mount only; otherwise for all
 * @returns undefined if no answer arrives in time
 */
export const askCounters = (
  pid: number,
  fd: number | undefined,
  device?: string,
): Promise<Answers | undefined> => query<Counters>(pid, fd, device === undefined ? [] : [device])

/**
 * Asks which layers of a mount serve a path, which starts at the mount's root.
 * @returns undefined also if the path is too long for one question
 */
export const askWhich = async (
  pid: number,
  fd: number | undefined,
  device: string,
  path: string,
): Promise<Answer | undefined> => {
  const words = [device, Buffer.from(path).toString('base64url')]
  return (await query<Answer>(pid, fd, words))?.[device]
}

const query = async <T>(
  pid: number,
  fd: number | undefined,
  words: readonly string[],
): Promise<Answers<T> | undefined> => {
  const token = randomBytes(12).toString('hex')
  if (fd === undefined || fd < 0) return undefined
  const line = `${[token, ...words].join(' ')}\n`
  if (line.length > LINE_MAX || !writeToPipe(pid, fd, line)) return undefined
  for (const until = Date.now() + TIMEOUT_MS; Date.now() < until;) {
    const answer = readAnswer<T>(pid, token)
    if (answer !== undefined) return answer
    await new Promise(done => setTimeout(done, POLL_MS))
  }
  return undefined
}

/** @returns undefined if the answer file does not exist yet, or is incomplete */
const readAnswer = <T>(pid: number, token: string): Answers<T> | undefined => {
  const name = `/memfd:${answerName(token)} `
  const fd = descriptorsOf(pid).find(([, target]) => target.startsWith(name))?.[0]
  if (fd === undefined) return undefined
  try {
    return JSON.parse(readDescriptor(pid, fd) ?? '') as Answers<T>
  } catch {
    return undefined
  }
}

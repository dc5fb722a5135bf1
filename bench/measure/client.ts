/** A client process, controlled by the measuring process. */

import { fork, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { plainEnvironment } from '../run/environment.js'
import type { FromClient, Taken, ToClient } from './messages.js'
import { leaveToNode } from './processes.js'
import type { MountPaths } from '../works/work.js'

/** A step that takes longer has hung, or is too slow to compare. */
const PATIENCE_MS = 180_000

const main = fileURLToPath(new URL('client-main.js', import.meta.url))

/**
 * Starts client processes as needed. A failed client may still have files open, so it is replaced.
 */
export class Client {
  #child: ChildProcess | null = null

  /** The client's process id; undefined if none is running. */
  get pid(): number | undefined {
    return this.#child?.pid
  }

  /** Prepares the steps of a run. */
  async prepare(work: string, run: number, place: MountPaths): Promise<void> {
    await this.#ask({ type: 'prepare', work, run, place }, 'ready')
  }

  /** Runs a prepared step. */
  async start(step: number): Promise<Taken> {
    return this.#ask({ type: 'start', step }, 'done')
  }

  /** Kills the process. */
  kill(): void {
    this.#child?.kill('SIGKILL')
    this.#child = null
  }

  async #ask<T extends FromClient['type']>(
    message: ToClient,
    expected: T,
  ): Promise<Extract<FromClient, { type: T }>> {
    this.#child ??= fork(main, { execArgv: [], env: plainEnvironment() })
    leaveToNode(this.#child.pid)
    try {
      const answer = await answerOf(this.#child, message)
      if (answer.type === expected) return answer as Extract<FromClient, { type: T }>
      throw new Error(answer.type === 'failed' ? answer.reason : `answered ${answer.type}`)
    } catch (error) {
      this.kill()
      throw error
    }
  }
}

const answerOf = (child: ChildProcess, message: ToClient): Promise<FromClient> =>
  new Promise((resolve, reject) => {
    const end = (settle: () => void): void => {
      clearTimeout(timer)
      child.off('message', onMessage).off('exit', onExit).off('error', reject)
      settle()
    }
    const onMessage = (answer: FromClient): void => end(() => resolve(answer))
    const onExit = (code: number | null, signal: string | null): void =>
      end(() => reject(new Error(`the client ended: ${signal ?? `exit status ${code}`}`)))
    const timer = setTimeout(
      () => end(() => reject(new Error(`no answer in ${PATIENCE_MS / 1000} s`))),
      PATIENCE_MS,
    )
    child.on('message', onMessage).on('exit', onExit).on('error', reject)
    child.send(message)
  })

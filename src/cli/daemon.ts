/**
 * Serving in the background, by Node where it runs anyway; tsoverlay.sh does the same. The first
 * process starts a second one, which leaves its terminal by setsid(2), and ends when that one says
 * that the mount is live, or has failed. Errors reach the user through the standard error that both
 * share until then.
 */

import { spawn } from 'node:child_process'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'

import { closeForeignDescriptors } from './descriptors.js'
import { ExitCode } from './exit-codes.js'
import { LAUNCHER, LIVE } from './background.js'
import { say } from './say.js'
import { entryPoint } from '../sys/entry-points.js'

const NO_THREADS =
  "it can't have the threads or the memory that it needs (ulimit -u, ulimit -v, or pids.max of the cgroup)"

/**
 * Node waits for ever where it gets a process and not all of the threads that it starts with. So
 * long it may take to run the server's first line, in milliseconds, which closes what it was given
 * as descriptor 3 (descriptors.ts).
 */
const START_MS = 10_000

/**
 * Starts the server and waits until the mount is live or has failed.
 * @param args the program's arguments, as they are
 * @returns the exit status
 */
export const startInBackground = (args: readonly string[]): Promise<number> => {
  closeForeignDescriptors()
  const server = fileURLToPath(entryPoint('cli/server'))
  // Node 20 reads these at every start: 40 ms for all of a system's. The server talks to nobody.
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env
  // Whoever interrupts the wait wants no mount. It is heard from before there is a server, which
  // would outlive this process.
  let interrupted = false
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      interrupted = true
      child.kill('SIGTERM')
    })
  }
  const child = spawn(process.execPath, [...process.execArgv, server, ...args], {
    env: { ...env, [LAUNCHER]: String(process.pid) },
    stdio: ['ignore', 'ignore', 'inherit', 'pipe'],
  })
  let late = false
  const timer = setTimeout(() => {
    late = true
    child.kill('SIGKILL')
  }, START_MS)
  // Null where there is no child. Only what is read is seen to end.
  const begun = child.stdio[3] as Readable | null | undefined
  begun
    ?.on('error', () => {})
    .on('close', () => clearTimeout(timer))
    .resume()
  return new Promise(resolve => {
    process.on(LIVE, () => {
      if (!interrupted) resolve(ExitCode.OK)
    })
    child.once('error', error => {
      say(`tsoverlay: the server can't be started: ${error.message}`)
      clearTimeout(timer)
      resolve(ExitCode.INTERNAL)
    })
    child.once('exit', (code, signal) => {
      if (interrupted) return resolve(ExitCode.INTERRUPTED)
      if (code === null) {
        const why = late
          ? `has not begun within ${START_MS / 1000} s: ${NO_THREADS}`
          : `was ended by ${signal} before the mount was live${signal === 'SIGABRT' || signal === 'SIGTRAP' ? `: ${NO_THREADS}` : ''}`
        say(`tsoverlay: the server ${why}`)
      }
      resolve(code === null || code === 0 ? ExitCode.INTERNAL : code)
    })
  })
}

/**
 * Starts a background server from Node, if Node already runs; tsoverlay.sh does the same. The first
 * process starts a second one, the server, which leaves the terminal by setsid(2). The first
 * process ends when the server reports that the mount is live, or fails. Both share standard error
 * until then, so that the server's errors reach the user.
 */

import { spawn } from 'node:child_process'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'

import { closeForeignDescriptors } from './descriptors.js'
import { ExitCode } from './exit-codes.js'
import { PARENT, LIVE } from './background.js'
import { say } from './say.js'
import { entryPoint } from '../sys/entry-points.js'

const NO_THREADS =
  "it can't have the threads or the memory that it needs (ulimit -u, ulimit -v, or pids.max of the cgroup)"

/**
 * Node waits forever if it gets a process but not all of the threads that it starts with. This is
 * the time limit for the server to run its first line, in milliseconds. That line closes the
 * inherited descriptor 3 (descriptors.ts), which ends the wait.
 */
const START_MS = 10_000

/**
 * Starts the server and waits until the mount is live or has failed.
 * @param args the program's arguments, unchanged
 * @returns the exit status
 */
export const startInBackground = (args: readonly string[]): Promise<number> => {
  closeForeignDescriptors()
  const server = fileURLToPath(entryPoint('cli/server'))
  // Node 20 reads these certificates at every start, which is slow. The server makes no TLS
  // connections.
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env
  // A user that interrupts the wait wants no mount. The handlers are installed before the server
  // starts: otherwise the server could outlive this process.
  let interrupted = false
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      interrupted = true
      child.kill('SIGTERM')
    })
  }
  const child = spawn(process.execPath, [...process.execArgv, server, ...args], {
    env: { ...env, [PARENT]: String(process.pid) },
    stdio: ['ignore', 'ignore', 'inherit', 'pipe'],
  })
  let timedOut = false
  const timer = setTimeout(() => {
    timedOut = true
    child.kill('SIGKILL')
  }, START_MS)
  // It is null if spawn failed. The end of the stream is reported only if the stream is read.
  const started = child.stdio[3] as Readable | null | undefined
  started
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
        const why = timedOut
          ? `has not begun within ${START_MS / 1000} s: ${NO_THREADS}`
          : `was ended by ${signal} before the mount was live${signal === 'SIGABRT' || signal === 'SIGTRAP' ? `: ${NO_THREADS}` : ''}`
        say(`tsoverlay: the server ${why}`)
      }
      resolve(code === null || code === 0 ? ExitCode.INTERNAL : code)
    })
  })
}

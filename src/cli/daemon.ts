/**
 * Serving in the background, by Node where it runs anyway; tsoverlay.sh does the same. The first process starts a
 * second one, which leaves its terminal by setsid(2), and ends when that one says that the mount is live, or has failed.
 * Errors reach the user through the standard error that both share until then.
 */

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

import { closeForeignDescriptors } from './descriptors.js'
import { ExitCode } from './exit-codes.js'
import { LAUNCHER, LIVE } from './launcher.js'
import { say } from './say.js'

/**
 * Starts the server and waits until the mount is live or has failed.
 * @param args the program's arguments, as they are
 * @returns the exit status
 */
export const startInBackground = (args: readonly string[]): Promise<number> => {
  closeForeignDescriptors()
  const server = fileURLToPath(new URL('../cli/server.cjs', import.meta.url))
  // Node 20 reads these at every start: 40 ms for all of a system's. The server talks to nobody.
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env
  // Whoever interrupts the wait wants no mount. It is heard from before there is a server, which would outlive this process.
  let interrupted = false
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      interrupted = true
      child.kill('SIGTERM')
    })
  }
  const child = spawn(process.execPath, [...process.execArgv, server, ...args], {
    env: { ...env, [LAUNCHER]: String(process.pid) },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  return new Promise(resolve => {
    process.on(LIVE, () => {
      if (!interrupted) resolve(ExitCode.OK)
    })
    child.once('error', error => {
      say(`tsoverlay: the server can't be started: ${error.message}`)
      resolve(ExitCode.INTERNAL)
    })
    child.once('exit', (code, signal) => {
      if (interrupted) return resolve(ExitCode.INTERRUPTED)
      if (code === null) {
        say(`tsoverlay: the server was ended by ${signal} before the mount was live`)
      }
      resolve(code === null || code === 0 ? ExitCode.INTERNAL : code)
    })
  })
}

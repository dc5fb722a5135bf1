/** Implements `tsoverlay server start`, `stop` and `status`. */

import { chdir } from 'node:process'

import { fuseMountsOf, titleForAll } from '../../host/servers.js'
import { markersOf } from '../../host/markers.js'
import { registeredIn, type Registered } from '../../resident/registration.js'
import { serverDirectory } from '../../resident/runtime-directory.js'
import { close } from '../../sys/io.js'
import { hasEnded, pidfdOpen, pidfdSignal } from '../../sys/pidfd.js'
import { setsid } from '../../sys/proc.js'
import { startOf } from '../../resident/processes.js'
import { ExitCode } from '../exit-codes.js'
import { signalLive } from '../background.js'
import { say } from '../say.js'
import type { Background } from '../serve.js'
import { handleSignals } from '../signals.js'
import { detachStandardError, openDevNull } from '../standard-error.js'
import { stay } from '../stay.js'
import { systemLogger } from '../syslog.js'

/** How long `stop` waits for the server to unmount everything and end. */
const STOP_TIMEOUT_MS = 30_000
const POLL_MS = 10
const SIGTERM = 15

/** @param linger in seconds */
export const startServer = async (linger: number, background: Background): Promise<number> => {
  setsid()
  const devNull = openDevNull()
  chdir('/')
  const log = systemLogger('warn')
  const signals = handleSignals(log)
  process.title = titleForAll([])
  const why = await stay({
    linger: linger * 1000,
    unanswered: 0,
    stays: true,
    signals,
    log,
    thread: background.thread,
    onRegistered: leave => {
      // If the parent has ended, no process expects this server.
      if (!signalLive(background.parent)) leave()
      detachStandardError(devNull)
    },
  })
  if (why === undefined) return ExitCode.OK
  say(`tsoverlay: no server can be started: ${why}`)
  return ExitCode.FAILED
}

const running = (): Registered | undefined => {
  const directory = serverDirectory()
  return directory === undefined ? undefined : registeredIn(directory)
}

export const stopServer = async (): Promise<number> => {
  const server = running()
  if (server === undefined) {
    say('tsoverlay: no server runs')
    return ExitCode.OK
  }
  const { pid, start } = server
  const pidfd = pidfdOpen(pid)
  if (pidfd < 0) return ExitCode.OK
  try {
    // The process id may have been reused.
    if (startOf(pid) !== start) return ExitCode.OK
    if (pidfdSignal(pidfd, SIGTERM) < 0 && !hasEnded(pidfd)) {
      say(`tsoverlay: process ${pid} can't be signalled`)
      return ExitCode.FAILED
    }
    for (const until = Date.now() + STOP_TIMEOUT_MS; Date.now() < until;) {
      if (hasEnded(pidfd)) return ExitCode.OK
      await new Promise(done => setTimeout(done, POLL_MS))
    }
  } finally {
    close(pidfd)
  }
  say(
    `tsoverlay: process ${pid} has not ended within ${STOP_TIMEOUT_MS / 1000} seconds: a file of a mount is still open, or a disk operation is in progress`,
  )
  return ExitCode.STILL_SERVED
}

/** Exit status of `status` if no server runs, as LSB defines it for init scripts. */
const NOT_RUNNING = 3

export const showServer = (json: boolean): number => {
  const server = running()
  const mounts =
    server === undefined
      ? []
      : markersOf(server.pid).map(
          ({ mountpoint, device, lower, upper, work, writable, io, since }) => ({
            // The mount may have been moved, or detached from the tree, since it was made.
            mountpoint: fuseMountsOf(server.pid, device)[0] ?? mountpoint,
            lower,
            upper,
            work,
            writable,
            io,
            since,
          }),
        )
  if (json) {
    const details = server === undefined ? {} : { pid: server.pid, stays: server.stays }
    console.log(JSON.stringify({ running: server !== undefined, ...details, mounts }))
  } else if (server === undefined) {
    console.log('no server runs')
  } else {
    const countText = mounts.length === 1 ? '1 mount' : `${mounts.length} mounts`
    console.log(`process ${server.pid}, ${countText}${server.stays ? '' : ', ends without mounts'}`)
    for (const { mountpoint } of mounts) console.log(mountpoint)
  }
  return server === undefined ? NOT_RUNNING : ExitCode.OK
}

/** `tsoverlay mount` in the process that serves the mount. */

import { chdir } from 'node:process'

import { MountError } from '../errors.js'
import type { UnionThread } from '../server/thread.js'
import type { Mount } from '../server/live-mount.js'
import { startMount, type StartOptions } from '../server/mount.js'
import { titleFor } from '../host/servers.js'
import { setsid } from '../sys/proc.js'
import { whyOwn } from '../resident/own-process.js'
import { serverDirectory } from '../resident/runtime-directory.js'
import { closeForeignDescriptors } from './descriptors.js'
import { ExitCode } from './exit-codes.js'
import { lineOf, stackOf, statusOf } from './failures.js'
import { signalLive } from './background.js'
import { say } from './say.js'
import { handleSignals } from './signals.js'
import { detachStandardError, openDevNull } from './standard-error.js'
import { stay } from './stay.js'
import {
  logMayWait,
  openLogs,
  pathsOf,
  parseMountRequest,
  startOptionsOf,
  type MountCommand,
  type MountRequest,
} from './mount-request.js'
import { workingDirectory } from './working-directory.js'

/** The context that server.ts passes to a background server. */
export interface Background {
  /** The process id of the parent, which waits for the mount. */
  parent: number
  /** The union's thread, started by startEarly. */
  thread: UnionThread
  /** The working directory at start-up. */
  cwd: string
  /** The process id of a resident server that did not answer the parent, or 0. */
  unanswered: number
  /**
   * Releases the lock file: other launcher scripts wait until this server accepts requests, or
   * until it is known that it will not.
   */
  releaseLock: () => void
  /** Called when the mount is live and no process waits for it any more. */
  onLive: () => void
}

/**
 * Mounts and serves until the mount has ended, or longer (stay.ts).
 * @returns the exit status
 */
export const serve = async (
  command: MountCommand,
  background: Background | undefined,
): Promise<number> => {
  // In the background server.ts has closed them, before it started a thread.
  if (background === undefined) closeForeignDescriptors()
  try {
    return await mountAndServe(command, background)
  } catch (error) {
    say(lineOf(error))
    return statusOf(error)
  }
}

const mountAndServe = async (
  command: MountCommand,
  background: Background | undefined,
): Promise<number> => {
  // A new session: signals from the terminal must not reach a background server.
  if (background !== undefined) setsid()
  const request = parseMountRequest(command, background?.cwd ?? workingDirectory())
  for (const line of request.messages) say(line)
  // This is decided before anything is mounted or opened.
  const stays = background !== undefined && mayShare(request)
  if (!stays) background?.releaseLock()

  const logs = await openLogs(request, say)
  const { log, reporting } = logs
  const signals = handleSignals(reporting)
  const onFault = (error: Error): void => {
    reporting.error({ error: stackOf(error) }, 'a fault of the program')
    process.exit(ExitCode.INTERNAL) // exit-guard.ts then detaches the mount from the tree
  }
  process.on('uncaughtException', onFault)
  const devNull = command.foreground ? undefined : openDevNull()
  chdir('/') // a server must not keep the directory busy in which it was started

  const mount = await startAfterLate(background?.unanswered ?? 0, {
    ...startOptionsOf(request, logs),
    thread: background?.thread,
    share: stays,
  })
  // For ps and pgrep.
  process.title = titleFor(mount.mountpoint, command.options)
  signals.attach(mount)
  log.info({ mountpoint: mount.mountpoint, io: mount.io, transport: command.transport }, 'mounted')

  logs.quiet()
  // If the parent has ended, no process knows of the mount, so it is unmounted.
  const isWanted = background === undefined || signalLive(background.parent)
  if (!isWanted) await mount[Symbol.asyncDispose]()
  // This comes after the unmount: a reader that waits for the end of standard error must not see a
  // mount that is about to be unmounted.
  if (devNull !== undefined) detachStandardError(devNull)
  background?.onLive()

  const closed = mount.closed.then(
    () => {
      log.info({ mountpoint: mount.mountpoint }, 'ended')
      return ExitCode.OK
    },
    (error: unknown) => {
      log.error({ error: stackOf(error) }, 'the server died')
      if (command.foreground) say(`tsoverlay: the server died: ${String(error)}`)
      return ExitCode.INTERNAL
    },
  )
  if (isWanted && stays) {
    await stay({
      first: { mount, closed, request },
      linger: command.linger * 1000,
      unanswered: background?.unanswered ?? 0,
      stays: false,
      signals,
      log: reporting,
      onRegistered: () => {
        process.off('uncaughtException', onFault)
        background?.releaseLock()
      },
    })
    background?.releaseLock()
  }
  return closed
}

/** How long to wait for a late server to unmount a mount whose client has given up. */
const BUSY_TIMEOUT_MS = 5000
const RETRY_MS = 50

/**
 * Starts the mount.
 * @param late the process id of a server that did not answer, or 0. It may have made the mount
 *   nevertheless, and unmounts it then; until that is done this mount fails with EBUSY and is
 *   retried.
 * @throws {MountError}
 */
const startAfterLate = async (late: number, options: StartOptions): Promise<Mount> => {
  for (const until = Date.now() + BUSY_TIMEOUT_MS; ;) {
    try {
      return await startMount(options)
    } catch (error) {
      const isBusy = error instanceof MountError && error.code === 'EBUSY'
      if (late === 0 || !isBusy || Date.now() > until) throw error
      await new Promise(done => setTimeout(done, RETRY_MS))
    }
  }
}

/** Whether the server of this mount may serve further mounts. */
const mayShare = (request: MountRequest): boolean =>
  !request.command.ownServer &&
  !request.options.ownServer &&
  request.command.transport === 'kernel' &&
  serverDirectory() !== undefined &&
  whyOwn(pathsOf(request)) === undefined &&
  !logMayWait(request)

/** `tsoverlay mount`, in the process that serves. */

import { chdir, cwd } from 'node:process'
import type { Worker } from 'node:worker_threads'

import { MountError } from '../errors.js'
import type { LogLevel } from '../log.js'
import { startMount, type Transport } from '../mount.js'
import { setsid } from '../sys/proc.js'
import { closeForeignDescriptors } from './descriptors.js'
import { ExitCode } from './exit-codes.js'
import { tellLive } from './launcher.js'
import { makeLogger, tellWarnings } from './logging.js'
import { absolute, parseMountOptions } from './options.js'
import { say } from './say.js'
import { handleSignals } from './signals.js'
import { dropStandardError } from './standard-error.js'

/** What a server in the background was given by server.ts. */
export interface Background {
  /** The process that waits for the mount. */
  launcher: number
  /** Of startEarly. */
  thread: Worker
}

export interface MountCommand {
  mountpoint: string
  /** The values of `-o`, in order. */
  options: string[]
  foreground: boolean
  logLevel: LogLevel
  logFile: string | undefined
  transport: Transport
}

/**
 * Mounts and serves until the mount has ended.
 * @returns the exit status
 */
export const serve = async (
  command: MountCommand,
  background: Background | undefined,
): Promise<number> => {
  // In the background server.ts has done so, before it started a thread.
  if (background === undefined) closeForeignDescriptors()
  try {
    return await mountAndServe(command, background)
  } catch (error) {
    if (error instanceof MountError) {
      say(`tsoverlay: ${error.message}`)
      return error.code === 'EINVAL' && error.path === undefined ? ExitCode.USAGE : ExitCode.FAILED
    }
    say(`tsoverlay: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
    return ExitCode.INTERNAL
  }
}

const mountAndServe = async (
  command: MountCommand,
  background: Background | undefined,
): Promise<number> => {
  // What is typed at a terminal is not for a server.
  if (background !== undefined) setsid()
  const here = workingDirectory()
  const options = parseMountOptions(command.options, here)
  for (const option of options.ignored) say(`unknown argument ignored: ${option}`)
  for (const warning of options.warnings) say(`tsoverlay: ${warning}`)

  const log = await makeLogger({
    level: command.logLevel,
    file: command.logFile === undefined ? undefined : absolute(command.logFile, here),
    foreground: command.foreground,
  })
  const told = command.foreground ? { logger: log, quiet: () => {} } : tellWarnings(log)
  const signals = handleSignals(told.logger)
  process.on('uncaughtException', error => {
    told.logger.error({ error: error.stack ?? error.message }, 'a fault of the program')
    process.exit(ExitCode.INTERNAL) // which takes the mount out of the tree: exit-guard.ts
  })
  const mountpoint = absolute(command.mountpoint, here)
  chdir('/') // a server must not keep the folder busy in which it was started

  const mount = await startMount({
    ...options,
    transport: command.transport,
    mountpoint,
    logger: told.logger,
    logLevel: command.logLevel,
    thread: background?.thread,
  })
  // For ps and pgrep. The mountpoint comes first: a title is cut where the command line ended.
  process.title = `tsoverlay mount ${mount.mountpoint} -o ${command.options.join(',')}`
  signals.attach(mount)
  log.info({ mountpoint: mount.mountpoint, io: mount.io, transport: command.transport }, 'mounted')

  told.quiet()
  // Where nobody waits any more, nobody knows of the mount, and it must not stay.
  if (background !== undefined && !tellLive(background.launcher)) await mount[Symbol.asyncDispose]()
  // Last, so that who waits for its end sees no mount that is about to go.
  if (!command.foreground) dropStandardError()

  try {
    await mount.closed
    log.info({ mountpoint: mount.mountpoint }, 'ended')
    return ExitCode.OK
  } catch (error) {
    log.error(
      { error: error instanceof Error ? (error.stack ?? error.message) : String(error) },
      'the server died',
    )
    if (command.foreground) say(`tsoverlay: the server died: ${String(error)}`)
    return ExitCode.INTERNAL
  }
}

const workingDirectory = (): string => {
  try {
    return cwd()
  } catch {
    return '/' // removed meanwhile; absolute paths still work
  }
}

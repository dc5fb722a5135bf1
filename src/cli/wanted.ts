/**
 * What a command line of `tsoverlay mount` asks for, and its logs: the same for the first mount of
 * a server and for further ones.
 */

import { statSync } from 'node:fs'

import type { Logger, LogLevel } from '../log.js'
import type { StartOptions, Transport } from '../server/mount.js'
import { makeLogger, tellWarnings } from './logging.js'
import { absolute, parseMountOptions, type ParsedOptions } from '../config/options.js'
import { checkUnknown, type OnUnknown } from '../config/unknown-options.js'

export interface MountCommand {
  mountpoint: string
  /** The values of `-o`, in order. */
  options: string[]
  foreground: boolean
  onUnknown: OnUnknown
  /** What the command line says, which comes before the mount options. */
  logLevel: LogLevel | undefined
  logFile: string | undefined
  transport: Transport
  /** The server serves nothing else. */
  ownServer: boolean
  /** How long the server stays without a mount, in seconds. */
  linger: number
}

export interface Wanted {
  command: MountCommand
  options: ParsedOptions
  mountpoint: string
  logFile: string | undefined
  /** Sentences for the user. */
  lines: readonly string[]
}

/**
 * Looks at no file.
 * @param here what relative paths start from
 * @throws {MountError}
 */
export const readWanted = (command: MountCommand, here: string): Wanted => {
  const options = parseMountOptions(command.options, here)
  const lines = [
    ...checkUnknown(options.ignored, options.labels, command.onUnknown),
    ...options.warnings.map(warning => `tsoverlay: ${warning}`),
  ]
  return {
    command,
    options,
    mountpoint: absolute(command.mountpoint, here),
    logFile: command.logFile === undefined ? options.logFile : absolute(command.logFile, here),
    lines,
  }
}

/** The layers and the work directory. */
export const layersOf = ({ options: { union } }: Wanted): string[] =>
  [...union.lower, union.upper, union.work].filter(path => path !== undefined)

/** All that the server opens or mounts on. */
export const pathsOf = (wanted: Wanted): string[] =>
  [...layersOf(wanted), wanted.mountpoint, wanted.logFile].filter(path => path !== undefined)

/**
 * Whether its log is no file: who opens or writes a FIFO or a terminal may have to wait. To be
 * asked where the path may be looked at.
 */
export const logMayWait = ({ logFile }: Wanted): boolean => {
  try {
    return logFile !== undefined && !statSync(logFile).isFile()
  } catch {
    return false // it is created
  }
}

export interface Logs {
  log: Logger
  /**
   * The same, and who waits for the mount is told of warnings and errors, until `quiet` is called.
   */
  told: Logger
  level: LogLevel
  quiet: () => void
  /** Closes the log file. */
  end: () => void
}

/**
 * @param tell receives lines for who waits for the mount
 * @param umask of whom a new log file is; else this process'
 * @throws {MountError} the log file can't be opened
 */
export const openLogs = async (
  wanted: Wanted,
  tell: (line: string) => void,
  umask?: number,
): Promise<Logs> => {
  const { command, options, logFile: file } = wanted
  const {
    logger: log,
    level,
    end = () => {},
  } = await makeLogger({
    level: command.logLevel ?? options.logLevel,
    file,
    named: command.logFile === undefined ? 'log_file' : '--log-file',
    foreground: command.foreground,
    umask,
    tell,
  })
  if (command.foreground) return { log, told: log, level, quiet: () => {}, end }
  const { logger: told, quiet } = tellWarnings(log, tell)
  return { log, told, level, quiet, end }
}

export const startOptionsOf = (wanted: Wanted, { told, level }: Logs): StartOptions => ({
  ...wanted.options,
  transport: wanted.command.transport,
  mountpoint: wanted.mountpoint,
  logger: told,
  logLevel: level,
})

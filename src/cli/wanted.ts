/**
 * A parsed command line of `tsoverlay mount`, and its loggers. The first mount of a server and
 * further mounts use the same code.
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
  /** The options of the command line; they take precedence over the mount options. */
  logLevel: LogLevel | undefined
  logFile: string | undefined
  transport: Transport
  /** The server serves no other mount. */
  ownServer: boolean
  /** How long the server stays without a mount, in seconds. */
  linger: number
}

export interface Wanted {
  command: MountCommand
  options: ParsedOptions
  mountpoint: string
  logFile: string | undefined
  /** Messages for the user. */
  lines: readonly string[]
}

/**
 * Parses the options; accesses no file.
 * @param here the directory that relative paths start from
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

/** The layers and the workdir. */
export const layersOf = ({ options: { union } }: Wanted): string[] =>
  [...union.lower, union.upper, union.work].filter(path => path !== undefined)

/** All paths that the server opens or mounts on. */
export const pathsOf = (wanted: Wanted): string[] =>
  [...layersOf(wanted), wanted.mountpoint, wanted.logFile].filter(path => path !== undefined)

/**
 * Whether the log file is not a regular file. Opening or writing a FIFO or a terminal may block.
 * Call it only if the path is safe to access.
 */
export const logMayWait = ({ logFile }: Wanted): boolean => {
  try {
    return logFile !== undefined && !statSync(logFile).isFile()
  } catch {
    return false // the file is created later
  }
}

export interface Logs {
  log: Logger
  /**
   * The same logger; it also sends warnings and errors to the process that waits for the mount,
   * until `quiet` is called.
   */
  told: Logger
  level: LogLevel
  quiet: () => void
  /** Closes the log file. */
  end: () => void
}

/**
 * @param tell receives lines for the process that waits for the mount
 * @param umask for a new log file; the default is the umask of this process
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

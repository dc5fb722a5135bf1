/**
 * A parsed command line of `tsoverlay mount`, and its loggers. The first mount of a server and
 * further mounts use the same code.
 */

import { statSync } from 'node:fs'

import type { Logger, LogLevel } from '../log.js'
import type { Transport } from '../config/types.js'
import type { StartOptions } from '../server/mount.js'
import { createLogger, reportWarnings } from './logging.js'
import { parseMountOptions, type ParsedOptions } from '../config/options.js'
import { absolute } from '../config/syntax.js'
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

export interface MountRequest {
  command: MountCommand
  options: ParsedOptions
  mountpoint: string
  logFile: string | undefined
  /** Messages for the user. */
  messages: readonly string[]
}

/**
 * Parses the options; accesses no file.
 * @param cwd the directory that relative paths start from
 * @throws {MountError}
 */
export const parseMountRequest = (command: MountCommand, cwd: string): MountRequest => {
  const options = parseMountOptions(command.options, cwd)
  const lines = [
    ...checkUnknown(options.ignored, options.labels, command.onUnknown),
    ...options.warnings.map(warning => `tsoverlay: ${warning}`),
  ]
  return {
    command,
    options,
    mountpoint: absolute(command.mountpoint, cwd),
    logFile: command.logFile === undefined ? options.logFile : absolute(command.logFile, cwd),
    messages: lines,
  }
}

/** The layers and the workdir. */
export const layersOf = ({ options: { union } }: MountRequest): string[] =>
  [...union.lower, union.upper, union.work].filter(path => path !== undefined)

/** All paths that the server opens or mounts on. */
export const pathsOf = (request: MountRequest): string[] =>
  [...layersOf(request), request.mountpoint, request.logFile].filter(path => path !== undefined)

/**
 * Whether the log file is not a regular file. Opening or writing a FIFO or a terminal may block.
 * Call it only if the path is safe to access.
 */
export const logMayWait = ({ logFile }: MountRequest): boolean => {
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
  reporting: Logger
  level: LogLevel
  quiet: () => void
  /** Closes the log file. */
  end: () => void
}

/**
 * @param report receives lines for the process that waits for the mount
 * @param umask for a new log file; the default is the umask of this process
 * @throws {MountError} the log file can't be opened
 */
export const openLogs = async (
  request: MountRequest,
  report: (line: string) => void,
  umask?: number,
): Promise<Logs> => {
  const { command, options, logFile: file } = request
  const {
    logger: log,
    level,
    end = () => {},
  } = await createLogger({
    level: command.logLevel ?? options.logLevel,
    file,
    named: command.logFile === undefined ? 'log_file' : '--log-file',
    foreground: command.foreground,
    umask,
    report,
  })
  if (command.foreground) return { log, reporting: log, level, quiet: () => {}, end }
  const { logger: reporting, quiet } = reportWarnings(log, report)
  return { log, reporting, level, quiet, end }
}

export const startOptionsOf = (
  request: MountRequest,
  { reporting, level }: Logs,
): StartOptions => ({
  ...request.options,
  transport: request.command.transport,
  mountpoint: request.mountpoint,
  logger: reporting,
  logLevel: level,
})

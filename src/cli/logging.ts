/**
 * Loggers of the command line. pino is loaded only for a log file or a server in the foreground. A
 * background server without a log file sends warnings and errors to the system log, and to the
 * process that waits for the mount.
 */

import { existsSync } from 'node:fs'
import { isatty } from 'node:tty'

import type { Logger as PinoLogger } from 'pino'

import { MountError } from '../errors.js'
import { logLevels, type LogLevel, type Logger, type LogMethod } from '../log.js'
import { say } from './say.js'
import { SYSTEM_LOG, systemLogger } from './syslog.js'

export interface LoggingOptions {
  /** `undefined` if no option sets the level. */
  level: LogLevel | undefined
  /** The file to append JSON lines to. */
  file: string | undefined
  /** The option that named the file. */
  named?: '--log-file' | 'log_file'
  foreground: boolean
  /** The umask for a new log file; the default is the umask of this process. */
  umask?: number | undefined
  /** Receives lines for the process that waits for the mount. */
  report?: (line: string) => void
}

export interface Logging {
  logger: Logger
  /** The lowest level that is logged. */
  level: LogLevel
  /** Closes the log file. */
  end?: () => void
}

/** @throws {MountError} the log file can't be opened */
export const createLogger = async ({
  level,
  file,
  named = '--log-file',
  foreground,
  umask = process.umask(),
  report = say,
}: LoggingOptions): Promise<Logging> => {
  if (file === undefined && !foreground) return toSystem(level, report)
  const least = level ?? 'info'
  if (file !== undefined) return { level: least, ...(await toFile(least, file, named, umask)) }
  return { level: least, logger: await toStandardError(least) }
}

/** The system log gets only messages that need attention: level `warn` and above. */
const toSystem = (level: LogLevel | undefined, report: (line: string) => void): Logging => {
  const atLeast = logLevels.indexOf('warn')
  if (level !== undefined && level !== 'silent') {
    if (!existsSync(SYSTEM_LOG)) {
      report(
        `tsoverlay: log level ${level}: there is no ${SYSTEM_LOG}; name a file by --log-file or log_file=`,
      )
    } else if (logLevels.indexOf(level) < atLeast) {
      report(
        `tsoverlay: log level ${level}: ${SYSTEM_LOG} receives only warnings and errors; name a file by --log-file or log_file=`,
      )
    }
  }
  const least = logLevels[Math.max(atLeast, logLevels.indexOf(level ?? 'warn'))] ?? 'warn'
  return { logger: systemLogger(least), level: least }
}

/** The log contains names of files that other users must not see. */
const LOG_MODE = 0o600

/** How many characters are kept while the file can't be written. Later lines are lost. */
const LOG_BACKLOG = 1024 * 1024

const toFile = async (
  level: LogLevel,
  file: string,
  named: string,
  umask: number,
): Promise<Pick<Logging, 'logger' | 'end'>> => {
  const { pino } = await import('pino')
  // The umask is changed only while the file is opened.
  const previous = process.umask(umask)
  try {
    const lines = pino.destination({
      dest: file,
      append: true,
      sync: true,
      mode: LOG_MODE,
      maxLength: LOG_BACKLOG,
    })
    // A full disk must not end the mount.
    lines.on('error', () => {})
    return { logger: wrap(pino({ level }, lines)), end: () => lines.end() }
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'EIO'
    throw new MountError(
      `${named}=${file}: can't be opened for writing (${code}); name a file in a directory that exists and is writable`,
      { option: 'log-file', path: file, code, cause: error },
    )
  } finally {
    process.umask(previous)
  }
}

const toStandardError = async (level: LogLevel): Promise<Logger> => {
  const { pino } = await import('pino')
  if (!isatty(2)) return wrap(pino({ level }, pino.destination({ dest: 2, sync: true })))
  const { default: pretty } = await import('pino-pretty')
  return wrap(
    pino(
      { level },
      pretty({
        destination: 2,
        sync: true,
        ignore: 'pid,hostname',
        translateTime: 'SYS:HH:MM:ss.l',
      }),
    ),
  )
}

const wrap = (logger: PinoLogger): Logger => logger

/**
 * Passes all messages on, and also sends warnings and errors to the user until `quiet` is called.
 */
export const reportWarnings = (
  logger: Logger,
  report: (line: string) => void = say,
): { logger: Logger; quiet: () => void } => {
  let isReporting = true
  const reporting =
    (pass: LogMethod): LogMethod =>
    (fields, message) => {
      if (isReporting) report(`tsoverlay: ${message}`)
      pass(fields, message)
    }
  return {
    logger: {
      debug: (fields, message) => logger.debug(fields, message),
      info: (fields, message) => logger.info(fields, message),
      warn: reporting((fields, message) => logger.warn(fields, message)),
      error: reporting((fields, message) => logger.error(fields, message)),
      isLevelEnabled: level => logger.isLevelEnabled(level),
    },
    quiet: () => {
      isReporting = false
    },
  }
}

/**
 * Loggers of the command line. pino is loaded only where somebody reads what it writes: a log file or the
 * foreground. A server in the background without a log file tells its warnings while it starts.
 */

import { isatty } from 'node:tty'

import type { Logger as PinoLogger } from 'pino'

import { MountError } from '../errors.js'
import { silentLogger, type LogLevel, type Logger, type LogMethod } from '../log.js'
import { say } from './say.js'

export const logLevels: readonly LogLevel[] = [
  'trace',
  'debug',
  'info',
  'warn',
  'error',
  'fatal',
  'silent',
]

export interface LoggingOptions {
  level: LogLevel
  /** Where JSON lines go; appended to. */
  file: string | undefined
  foreground: boolean
}

/** @throws {MountError} the log file can't be opened */
export const makeLogger = async ({ level, file, foreground }: LoggingOptions): Promise<Logger> => {
  if (file !== undefined) return toFile(level, file)
  if (foreground) return toStandardError(level)
  return silentLogger
}

const toFile = async (level: LogLevel, file: string): Promise<Logger> => {
  const { pino } = await import('pino')
  try {
    return wrap(pino({ level }, pino.destination({ dest: file, append: true, sync: true })))
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'EIO'
    throw new MountError(
      `--log-file=${file}: can't be opened for writing (${code}); name a file in a folder that exists and is writable`,
      { option: 'log-file', path: file, code, cause: error },
    )
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

/** Passes everything on, and tells warnings and errors to the user until `quiet` is called. */
export const tellWarnings = (logger: Logger): { logger: Logger; quiet: () => void } => {
  let telling = true
  const told =
    (pass: LogMethod): LogMethod =>
    (fields, message) => {
      if (telling) say(`tsoverlay: ${message}`)
      pass(fields, message)
    }
  return {
    logger: {
      debug: (fields, message) => logger.debug(fields, message),
      info: (fields, message) => logger.info(fields, message),
      warn: told((fields, message) => logger.warn(fields, message)),
      error: told((fields, message) => logger.error(fields, message)),
      isLevelEnabled: level => logger.isLevelEnabled(level),
    },
    quiet: () => {
      telling = false
    },
  }
}

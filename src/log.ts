/**
 * The logger that every layer of the program takes as an argument. It has the shape of pino's, so
 * that the command line passes a pino logger unchanged. Only `src/cli` imports pino.
 */

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent'

export const logLevels: readonly LogLevel[] = [
  'trace',
  'debug',
  'info',
  'warn',
  'error',
  'fatal',
  'silent',
]

/** One log method: structured fields first, then a sentence. */
export type LogMethod = (fields: Record<string, unknown>, message: string) => void

export interface Logger {
  debug: LogMethod
  info: LogMethod
  warn: LogMethod
  error: LogMethod
  isLevelEnabled(level: LogLevel): boolean
}

const nothing: LogMethod = () => {}

/** A logger that drops everything. */
export const silentLogger: Logger = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
  isLevelEnabled: () => false,
}

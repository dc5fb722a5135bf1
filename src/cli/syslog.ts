/**
 * Logs to the system log as syslog(3) does: one datagram for each line, to the reader of /dev/log
 * (journald, rsyslogd, ...).
 */

import { writeSync } from 'node:fs'
import { pid } from 'node:process'

import { logLevels, type LogLevel, type Logger, type LogMethod } from '../log.js'
import { close } from '../sys/io.js'
import { datagramsTo } from '../sys/socket.js'

export const SYSTEM_LOG = '/dev/log'

const DAEMON = 3 << 3
/** LOG_ERR, LOG_WARNING, ... of syslog(3). */
const severities = { error: 3, warn: 4, info: 6, debug: 7 } as const
type Severity = keyof typeof severities

/** The datagram size that every reader of /dev/log accepts. */
const MAX_BYTES = 8192

const MONTHS = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ')

const pad = (n: number, filler = '0'): string => String(n).padStart(2, filler)

/** Mmm dd hh:mm:ss, in local time: RFC 3164, 4.1.2. */
const timestamp = (now: Date): string => {
  const day = pad(now.getDate(), ' ')
  const time = [now.getHours(), now.getMinutes(), now.getSeconds()].map(n => pad(n)).join(':')
  return `${MONTHS[now.getMonth()]} ${day} ${time}`
}

const bigintToString = (_key: string, value: unknown): unknown =>
  typeof value === 'bigint' ? String(value) : value

/**
 * Formats one line of the log. JSON contains no line breaks; line breaks and other control
 * characters in the message become blanks.
 */
export const systemLine = (
  severity: Severity,
  fields: Record<string, unknown>,
  message: string,
  now: Date,
): Buffer => {
  const more = Object.keys(fields).length === 0 ? '' : ` ${JSON.stringify(fields, bigintToString)}`
  const text = `${message.replaceAll(/\p{Cc}+/gu, ' ')}${more}`
  const line = Buffer.from(
    `<${DAEMON | severities[severity]}>${timestamp(now)} tsoverlay[${pid}]: ${text}`,
  )
  return line.subarray(0, MAX_BYTES)
}

/**
 * Sends lines to the system log, which is opened for the first line. A line is lost if there is no
 * system log or if its socket is full: a server never waits for it.
 * @param level the lowest level that is sent
 */
export const systemLogger = (level: LogLevel, path = SYSTEM_LOG): Logger => {
  const least = logLevels.indexOf(level)
  let fd = -1
  const send = (line: Buffer): void => {
    // Two attempts: the reader may have been restarted since the socket was opened.
    for (let tries = 0; tries < 2; tries++) {
      if (fd < 0) fd = datagramsTo(path)
      if (fd < 0) return
      try {
        writeSync(fd, line)
        return
      } catch (error) {
        if (error instanceof Error && 'code' in error && error.code === 'EAGAIN') return
        close(fd)
        fd = -1
      }
    }
  }
  const method =
    (severity: Severity): LogMethod =>
    (fields, message) => {
      if (logLevels.indexOf(severity) >= least)
        send(systemLine(severity, fields, message, new Date()))
    }
  return {
    debug: method('debug'),
    info: method('info'),
    warn: method('warn'),
    error: method('error'),
    isLevelEnabled: wanted => logLevels.indexOf(wanted) >= least,
  }
}

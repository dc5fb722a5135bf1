/** The progress line on standard error. */

import type { Progress } from './records.js'

const isTerminal = process.stderr.isTTY
let shownAt = -Infinity

const timeLeft = ({ done, all }: Progress, startedAt: number): string => {
  if (done < 3) return ''
  const seconds = ((performance.now() - startedAt) / done) * (all - done) * 1e-3
  return seconds < 90 ? `, ${Math.ceil(seconds)} s left` : `, ${Math.ceil(seconds / 60)} min left`
}

/**
 * Rewrites the line. If it can't be rewritten, as in a file, a line is written every few seconds.
 */
export const show = (title: string, progress: Progress, startedAt: number): void => {
  const QUIET_MS = 5000
  if (!isTerminal && performance.now() - shownAt < QUIET_MS) return
  shownAt = performance.now()
  const { done, all, text } = progress
  const line = `${title}, ${done} of ${all}${timeLeft(progress, startedAt)}: ${text}`
  process.stderr.write(
    isTerminal ? `\r${line.slice(0, process.stderr.columns - 1)}\x1b[K` : `${line}\n`,
  )
}

/** Removes the line; the next one is shown at once. */
export const clearLine = (): void => {
  shownAt = -Infinity
  if (isTerminal) process.stderr.write('\r\x1b[K')
}

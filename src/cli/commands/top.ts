/** `tsoverlay top`: shows the mounted unions and their request rates, and refreshes the display. */

import { constants } from 'node:os'

import { ExitCode } from '../exit-codes.js'
import { listMounts, type Listed } from './ls.js'
import { say } from '../say.js'
import { age, oneWord, size, table } from '../table.js'

/** A value is null if it can't be determined, or if it is not known yet. */
export interface Busy extends Listed {
  /** Requests per second since the previous sample. */
  rate: number | null
}

/** One sample of all mounts; `time` is in milliseconds. */
export interface Sample {
  time: number
  mounts: readonly Busy[]
}

/** Identifies a mount in two samples. Another mount on the same directory has another key. */
const keyOf = ({ pid, since, mountpoint }: Listed): string => `${pid} ${since} ${mountpoint}`

/** @param time in milliseconds of a monotonic clock */
export const nextSample = (mounts: readonly Listed[], time: number, previous?: Sample): Sample => {
  const known = new Map(previous?.mounts.map(one => [keyOf(one), one.requests]))
  const seconds = previous === undefined ? 0 : (time - previous.time) / 1000
  return {
    time,
    mounts: mounts.map(one => {
      const was = known.get(keyOf(one)) ?? null
      const rate =
        one.requests === null || was === null || seconds <= 0
          ? null
          : Math.max(0, one.requests - was) / seconds
      return { ...one, rate }
    }),
  }
}

/** The sort orders, by key: the name to show, and the value to sort by. */
export const ORDERS = {
  r: { name: 'requests per second', of: (one: Busy) => one.rate },
  t: { name: 'requests in total', of: (one: Busy) => one.requests },
  m: { name: 'memory', of: (one: Busy) => one.memory },
  a: { name: 'age', of: (one: Busy) => one.age },
  p: { name: 'path', of: () => null },
} as const
export type Order = keyof typeof ORDERS

const isOrder = (key: string): key is Order => Object.hasOwn(ORDERS, key)

/** Sorts by descending value, with unknown values last; equal values are sorted by path. */
export const sorted = (mounts: readonly Busy[], order: Order): Busy[] => {
  const { of } = ORDERS[order]
  return mounts.toSorted(
    (a, b) =>
      (of(b) ?? -1) - (of(a) ?? -1) ||
      (a.mountpoint < b.mountpoint ? -1 : Number(a.mountpoint > b.mountpoint)),
  )
}

const HEADINGS = ['REQUESTS/S', 'REQUESTS', 'MEMORY', 'MOUNTS', 'PID', 'AGE', 'MODE', 'MOUNTPOINT']
const NUMBERS = new Set([0, 1, 2, 3, 4, 5])

const text = <T>(value: T | null, show: (value: T) => string = String): string =>
  value === null ? '-' : show(value)

const rateOf = (rate: number): string => rate.toFixed(rate > 0 && rate < 10 ? 1 : 0)

export const linesOf = ({ mounts }: Sample, order: Order): string[] =>
  table(
    [
      HEADINGS,
      ...sorted(mounts, order).map(one => [
        text(one.rate, rateOf),
        text(one.requests),
        text(one.memory, size),
        text(one.mounts),
        text(one.pid),
        text(one.age, age),
        text(one.io, oneWord),
        oneWord(one.mountpoint),
      ]),
    ],
    NUMBERS,
  )

const sum = (values: Iterable<number>): number => [...values].reduce((all, one) => all + one, 0)
const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`

/** Totals over all mounts. */
const summaryOf = ({ mounts }: Sample): string => {
  const memory = new Map(mounts.map(({ pid, memory: bytes }) => [pid, bytes ?? 0]))
  memory.delete(null)
  const rate = mounts.some(one => one.rate !== null)
    ? rateOf(sum(mounts.map(one => one.rate ?? 0)))
    : '-'
  return `${count(mounts.length, 'mount')}, ${count(memory.size, 'server')}, ${rate} requests/s, ${size(sum(memory.values()))} memory`
}

/** The lines of one screen, cut to the number of rows and columns. */
export const screenOf = (
  sample: Sample,
  order: Order,
  { columns, rows }: { columns: number; rows: number },
): string[] =>
  [
    `tsoverlay top: ${summaryOf(sample)}`,
    `by ${ORDERS[order].name}; keys: ${Object.entries(ORDERS)
      .map(([key, { name }]) => `${key} ${name}`)
      .join(', ')}, q end`,
    '',
    ...linesOf(sample, order),
  ]
    .slice(0, rows)
    .map(line => Array.from(line).slice(0, columns).join(''))

// Switches to the alternate screen, hides the cursor and turns off line wrap. Lines that are wider
// than counted (wide characters) then do not wrap.
const ENTER = '\u001B[?1049h\u001B[?25l\u001B[?7l'
const LEAVE = '\u001B[?7h\u001B[?25h\u001B[?1049l'
const HOME = '\u001B[H'
const CLEAR_LINE = '\u001B[K'
const CLEAR_BELOW = '\u001B[J'

const CTRL_C = '\u0003'
const CTRL_Z = '\u001A'
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT'] as const

/** A terminal in raw mode, so that single keys can be read. */
class RawTerminal {
  readonly #input = process.stdin
  readonly #output = process.stdout
  #isActive = false

  get size(): { columns: number; rows: number } {
    // The size is 0 if the terminal does not report one.
    return { columns: this.#output.columns || 80, rows: this.#output.rows || 24 }
  }

  enter(): void {
    if (this.#isActive) return
    this.#isActive = true
    this.#input.setRawMode(true)
    this.#output.write(ENTER)
  }

  /** Restores the terminal's previous state. */
  restore(): void {
    if (!this.#isActive) return
    this.#isActive = false
    try {
      this.#output.write(LEAVE)
      this.#input.setRawMode(false)
    } catch {
      // the terminal is gone
    }
  }

  show(lines: readonly string[]): void {
    if (!this.#isActive) return
    // A newline after the last line would scroll the screen.
    const body = lines.map(line => `${line}${CLEAR_LINE}`).join('\r\n')
    this.#output.write(`${HOME}${body}${CLEAR_BELOW}`)
  }
}

export interface TopOptions {
  /** Seconds between two samples. */
  delay: number
  /** Print one sample after one delay, and end. */
  once: boolean
}

const pause = (seconds: number): Promise<void> =>
  new Promise(done => setTimeout(done, seconds * 1000))

const takeSample = async (previous?: Sample): Promise<Sample> => {
  const mounts = await listMounts()
  return nextSample(mounts, performance.now(), previous)
}

/** @returns the exit status */
export const showTop = async ({ delay, once: isOnce }: TopOptions): Promise<number> => {
  if (isOnce) {
    const first = await takeSample()
    await pause(delay)
    for (const line of linesOf(await takeSample(first), 'r')) console.log(line)
    return ExitCode.OK
  }
  if (process.stdin.isTTY && process.stdout.isTTY) return new Top(delay).run()
  say('tsoverlay: top needs a terminal; without one: tsoverlay top --once, or tsoverlay ls --json')
  return ExitCode.USAGE
}

class Top {
  readonly #delay: number
  readonly #terminal = new RawTerminal()
  #order: Order = 'r'
  #sample: Sample | undefined
  #isSampling = false
  #timer: NodeJS.Timeout | undefined
  #end: (status: number) => void = () => {}
  #fail: (error: unknown) => void = () => {}

  constructor(delay: number) {
    this.#delay = delay
  }

  async run(): Promise<number> {
    const ended = new Promise<number>((resolve, reject) => {
      this.#end = resolve
      this.#fail = reject
    })
    const restore = (): void => this.#terminal.restore()
    process.once('exit', restore)
    for (const signal of SIGNALS)
      process.on(signal, () => this.#end(128 + constants.signals[signal]))
    process.on('SIGCONT', () => {
      this.#terminal.enter()
      this.#draw()
    })
    process.stdout.on('resize', () => this.#draw())
    // The terminal was closed.
    for (const stream of [process.stdin, process.stdout])
      stream.on('error', () => this.#end(ExitCode.FAILED))
    process.stdin.on('end', () => this.#end(ExitCode.FAILED))
    this.#terminal.enter()
    process.stdin.setEncoding('utf8').on('data', (keys: string) => this.#onKeys(keys))
    void this.#refresh()
    try {
      return await ended
    } finally {
      clearTimeout(this.#timer)
      restore()
    }
  }

  #onKeys(keys: string): void {
    for (const key of keys.toLowerCase()) {
      if (key === 'q' || key === CTRL_C) return this.#end(ExitCode.OK)
      if (key === CTRL_Z) {
        this.#terminal.restore()
        process.kill(process.pid, 'SIGTSTP')
      } else if (key === ' ') void this.#refresh()
      else if (isOrder(key)) this.#order = key
    }
    this.#draw()
  }

  async #refresh(): Promise<void> {
    if (this.#isSampling) return
    this.#isSampling = true
    clearTimeout(this.#timer)
    try {
      this.#sample = await takeSample(this.#sample)
    } catch (error) {
      return this.#fail(error)
    } finally {
      this.#isSampling = false
    }
    this.#timer = setTimeout(() => void this.#refresh(), this.#delay * 1000)
    this.#draw()
  }

  #draw(): void {
    if (this.#sample !== undefined)
      this.#terminal.show(screenOf(this.#sample, this.#order, this.#terminal.size))
  }
}

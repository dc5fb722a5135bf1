/** The processes behind a mount: who they are, and what they have used. */

import * as fs from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { cpuOf } from './calls.js'

/** The variable by which everything that a mount has started is known; daemons keep their environment. */
export const MARK = 'TSOVERLAY_BENCH_MOUNT'

const readProc = (file: string): string => {
  try {
    return fs.readFileSync(`/proc/${file}`, 'latin1')
  } catch {
    return '' // it has ended
  }
}

/** Processes which carry a mark that starts so. */
export const marked = (mark: string): number[] =>
  fs
    .readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .filter(pid => `\0${readProc(`${pid}/environ`)}`.includes(`\0${MARK}=${mark}`))
    .map(Number)

export const isAlive = (pid: number): boolean =>
  /^State:\s*[^ZX\s]/m.test(readProc(`${pid}/status`))

/** Kills a process which this benchmark has started. */
export const kill = (pid: number): void => {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has just ended by itself.
  }
}

/** Waits for processes to end; returns those that have not. */
export const waitForEnd = async (pids: readonly number[], ms: number): Promise<number[]> => {
  let alive = pids.filter(isAlive)
  for (const end = performance.now() + ms; alive.length > 0 && performance.now() < end;) {
    await pause(1)
    alive = alive.filter(isAlive)
  }
  return alive
}

/** Processor seconds of all of them. */
export const cpuOfAll = (pids: readonly number[]): number =>
  pids.reduce((sum, pid) => sum + cpuOf(pid), 0)

const LOOK_MS = 50
const PATIENCE_MS = 30_000
/** Processor seconds that nobody's work takes. */
const NOTHING = 0.001

/** Waits until processes have used no processor time for so long, in milliseconds. */
export const untilQuiet = async (pids: readonly number[], quietMs: number): Promise<void> => {
  const end = performance.now() + PATIENCE_MS
  let before = cpuOfAll(pids)
  for (let quiet = 0; quiet < quietMs && performance.now() < end;) {
    await pause(LOOK_MS)
    const now = cpuOfAll(pids)
    quiet = now - before < NOTHING ? quiet + LOOK_MS : 0
    before = now
  }
}

/** A line of each one's status, in KiB, added up. */
const memory = (pids: readonly number[], line: 'VmHWM' | 'VmRSS'): number =>
  pids.reduce((sum, pid) => {
    const [, kib = '0'] =
      new RegExp(`^${line}:\\s*(\\d+) kB`, 'm').exec(readProc(`${pid}/status`)) ?? []
    return sum + Number(kib)
  }, 0)

/** The largest amount of memory each of them has had, in KiB, added up. */
export const peakMemory = (pids: readonly number[]): number => memory(pids, 'VmHWM')

/** The memory that they have now, in KiB, added up. */
export const residentMemory = (pids: readonly number[]): number => memory(pids, 'VmRSS')

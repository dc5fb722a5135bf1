/**
 * The processes that the measuring process has started, and their resource use. It is their
 * subreaper: an orphaned server becomes its child. So no process is missed, and the CPU time of
 * ended processes is known.
 */

import * as fs from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { collect, cpuOf, cpuOfEnded } from './calls.js'

interface Process {
  pid: number
  parent: number
  state: string
  threads: number
  /** CPU seconds of its children that have ended. */
  cpuOfChildren: number
}

/** The clock tick of times in /proc, which is the same on all architectures. */
const TICKS = 100

const readProc = (file: string): string => {
  try {
    return fs.readFileSync(`/proc/${file}`, 'latin1')
  } catch {
    return '' // the process has ended
  }
}

/** Parses /proc/PID/stat; null if the process has ended. */
export const parseStat = (stat: string): Process | null => {
  const name = stat.lastIndexOf(')')
  if (name < 0) return null
  const words = stat.slice(name + 2).split(' ')
  const number = (field: number): number => Number(words[field - 3])
  return {
    pid: Number.parseInt(stat, 10),
    state: words[0] ?? '',
    parent: number(4),
    threads: number(20),
    cpuOfChildren: (number(16) + number(17)) / TICKS,
  }
}

/** Children that Node reaps. */
const waitedFor = new Set<number>()

/** Leaves the reaping of a child to Node. */
export const leaveToNode = (pid: number | undefined): void => {
  if (pid !== undefined) waitedFor.add(pid)
}

/** All descendants of this process that have not ended. Reaps the zombies among its children. */
const descendants = (): Process[] => {
  const children = new Map<number, Process[]>()
  for (const name of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const found = parseStat(readProc(`${name}/stat`))
    if (found === null) continue
    const siblings = children.get(found.parent)
    if (siblings === undefined) children.set(found.parent, [found])
    else siblings.push(found)
  }
  const found: Process[] = []
  const visit = (pid: number): void => {
    for (const child of children.get(pid) ?? []) {
      if (child.state === 'Z') {
        if (pid === process.pid && !waitedFor.has(child.pid)) collect(child.pid)
      } else if (child.state !== 'X') found.push(child)
      visit(child.pid)
    }
  }
  visit(process.pid)
  return found
}

const cpuOfAll = (processes: readonly Process[]): number =>
  processes.reduce((sum, { pid, cpuOfChildren }) => sum + cpuOf(pid) + cpuOfChildren, 0) +
  cpuOfEnded()

/** CPU seconds of all descendants, including ended ones. */
export const cpuUsed = (): number => cpuOfAll(descendants())

/** The resources that servers hold. */
export interface Holding {
  /** Proportional set size (PSS) in KiB. */
  memory: number
  processes: number
  threads: number
}

/**
 * The CPU time of all descendants, and the resources that they hold, except process `apart` and its
 * descendants.
 */
export const usage = (excluded: number | undefined): Holding & { cpu: number } => {
  const all = descendants()
  const cpu = cpuOfAll(all)
  const servers = without(all, excluded)
  const memory = servers.map(({ pid }) =>
    Number(/^Pss:\s*(\d+) kB/m.exec(readProc(`${pid}/smaps_rollup`))?.[1] ?? 0),
  )
  return {
    cpu,
    memory: memory.reduce((sum, kib) => sum + kib, 0),
    processes: servers.length,
    threads: servers.reduce((sum, { threads }) => sum + threads, 0),
  }
}

const without = (all: readonly Process[], apart: number | undefined): Process[] => {
  const left = new Set(apart === undefined ? [] : [apart])
  // Parents come before their children.
  for (const { pid, parent } of all) if (left.has(parent)) left.add(pid)
  return all.filter(({ pid }) => !left.has(pid))
}

const serversOf = (apart: number | undefined): Process[] => without(descendants(), apart)

/**
 * Sends a signal to descendants.
 * @param titled matches their command lines; by default all match
 */
export const signalServers = (signal: NodeJS.Signals, apart?: number, titled = /^/): void => {
  for (const { pid } of serversOf(apart)) {
    if (!titled.test(readProc(`${pid}/cmdline`))) continue
    try {
      process.kill(pid, signal)
    } catch {
      // The process has just ended.
    }
  }
}

/** The number of descendants. */
export const countServers = (): number => descendants().length

/**
 * Waits until no descendant is left except process `apart` and its descendants. Returns false after
 * `patienceMs`.
 */
export const untilServersEnded = async (
  apart: number | undefined,
  patienceMs: number,
): Promise<boolean> => {
  const end = performance.now() + patienceMs
  for (let servers; (servers = serversOf(apart)).length > 0;) {
    // Listing all processes of the machine is expensive. So the known processes are polled until
    // they have ended.
    for (const { pid } of servers)
      while (isRunning(pid)) {
        if (performance.now() > end) return false
        await pause(2)
      }
  }
  return true
}

const isRunning = (pid: number): boolean => {
  const state = parseStat(readProc(`${pid}/stat`))?.state
  return state !== undefined && state !== 'Z' && state !== 'X'
}

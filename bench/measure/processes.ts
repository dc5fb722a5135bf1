/**
 * The processes that the one who measures has started, and what they have used. It is the reaper of
 * all of them: a server whose parent has ended becomes its child, so that none is missed, and what
 * the ended ones have used is known.
 */

import * as fs from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { collect, cpuOf, cpuOfEnded } from './calls.js'

interface Process {
  pid: number
  parent: number
  state: string
  threads: number
  /** Processor seconds of its children that have ended. */
  cpuOfChildren: number
}

/** The unit of times in /proc, the same on all architectures. */
const TICKS = 100

const readProc = (file: string): string => {
  try {
    return fs.readFileSync(`/proc/${file}`, 'latin1')
  } catch {
    return '' // it has ended
  }
}

/** What /proc/PID/stat says; null: there is none any more. */
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

/** Children that Node waits for itself. */
const waitedFor = new Set<number>()

/** Leaves the end of a child to Node. */
export const isWaitedFor = (pid: number | undefined): void => {
  if (pid !== undefined) waitedFor.add(pid)
}

/** Everything below this process that has not ended. */
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

/** Processor seconds of all processes below this one, with those that have ended. */
export const cpuUsed = (): number => cpuOfAll(descendants())

/** What servers hold. */
export interface Holding {
  /** The memory that is theirs, in KiB; what several share is divided among them. */
  memory: number
  processes: number
  threads: number
}

/**
 * What all processes below this one have used; and what they hold, but for one and those below it.
 */
export const usage = (apart: number | undefined): Holding & { cpu: number } => {
  const all = descendants()
  const cpu = cpuOfAll(all)
  const servers = without(all, apart)
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
 * Tells processes below this one to end.
 * @param titled whose command lines look so; all, if nothing is said
 */
export const signalServers = (signal: NodeJS.Signals, apart?: number, titled = /^/): void => {
  for (const { pid } of serversOf(apart)) {
    if (!titled.test(readProc(`${pid}/cmdline`))) continue
    try {
      process.kill(pid, signal)
    } catch {
      // It has just ended.
    }
  }
}

/** How many there are below this process. */
export const countServers = (): number => descendants().length

/** Waits until no process is left below this one but one. Returns whether that is so. */
export const untilServersEnded = async (
  apart: number | undefined,
  patienceMs: number,
): Promise<boolean> => {
  const end = performance.now() + patienceMs
  for (let servers; (servers = serversOf(apart)).length > 0;) {
    // To look at all processes of the machine is work, so as long as these are there, only they are
    // looked at.
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

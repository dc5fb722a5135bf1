/** `tsoverlay ls`: lists the unions that are mounted in this mount namespace. */

import { readFileSync } from 'node:fs'

import { mountedUnions } from '../../host/mounted-unions.js'
import { askCounters } from '../../resident/ask.js'
import type { Answers } from '../../server/questions.js'
import { age, oneWord, size, table } from '../table.js'

/** A value is null if it can't be determined. */
export interface Listed {
  mountpoint: string
  /** The topmost layer comes first. */
  lower: readonly string[] | null
  upper: string | null
  work: string | null
  writable: boolean | null
  io: string | null
  pid: number | null
  /** The mount time in milliseconds since 1970, and the time since then in seconds. */
  since: number | null
  age: number | null
  requests: number | null
  /** The server's memory in bytes; all its mounts share it. */
  memory: number | null
  /** The number of mounts of the server. */
  mounts: number | null
}

export const listMounts = async (now = Date.now()): Promise<Listed[]> => {
  const all = mountedUnions()
  const answers = new Map<number, Promise<Answers | undefined>>()
  const memory = new Map<number, number | null>()
  return Promise.all(
    all.map(async ({ mount, server }): Promise<Listed> => {
      const marker = server?.marker
      const pid = server?.pids[0]
      if (pid !== undefined && !answers.has(pid)) {
        answers.set(pid, askCounters(pid, marker?.questions))
        memory.set(pid, memoryOf(server?.pids ?? []))
      }
      const answer = pid === undefined ? undefined : await answers.get(pid)
      const requests = answer?.[mount.device]?.['requests']
      return {
        mountpoint: mount.mountpoint,
        lower: marker?.lower ?? null,
        upper: marker?.upper ?? null,
        work: marker?.work ?? null,
        writable: marker?.writable ?? null,
        io: marker?.io ?? null,
        pid: pid ?? null,
        since: marker?.since ?? null,
        age: marker === undefined ? null : Math.max(0, Math.floor((now - marker.since) / 1000)),
        requests: typeof requests === 'number' ? requests : null,
        memory: pid === undefined ? null : (memory.get(pid) ?? null),
        mounts: marker === undefined ? null : (server?.mounts ?? null),
      }
    }),
  )
}

/** Proportional set size (PSS) of the processes, in bytes. Null if it can't be read. */
const memoryOf = (pids: readonly number[]): number | null => {
  let sum = 0
  for (const pid of pids) {
    try {
      const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1')
      const kib = /^Pss:\s+(\d+) kB/m.exec(text)?.[1]
      if (kib === undefined) return null
      sum += Number(kib) * 1024
    } catch {
      return null
    }
  }
  return sum
}

const HEADINGS = ['MOUNTPOINT', 'PID', 'MODE', 'AGE', 'REQUESTS', 'MEMORY', 'MOUNTS', 'LAYERS']
const NUMBERS = new Set([1, 3, 4, 5, 6])

const orDash = <T>(value: T | null, show: (value: T) => string = String): string =>
  value === null ? '-' : show(value)

/** The layers as text for a person: commas and colons in paths are not escaped. */
const layersOf = ({ lower, upper, work }: Listed): string => {
  if (lower === null) return '-'
  const words = [`lowerdir=${lower.join(':')}`]
  if (upper !== null) words.push(`upperdir=${upper}`)
  if (work !== null) words.push(`workdir=${work}`)
  return oneWord(words.join(','))
}

export const rowsOf = (mounts: readonly Listed[]): string[][] => [
  HEADINGS,
  ...mounts.map(one => [
    oneWord(one.mountpoint),
    orDash(one.pid),
    orDash(one.io, oneWord),
    orDash(one.age, age),
    orDash(one.requests),
    orDash(one.memory, size),
    orDash(one.mounts),
    layersOf(one),
  ]),
]

export const showMounts = async (json: boolean): Promise<void> => {
  const mounts = await listMounts()
  if (json) console.log(JSON.stringify(mounts))
  else for (const line of table(rowsOf(mounts), NUMBERS)) console.log(line)
}

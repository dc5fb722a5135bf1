/** `tsoverlay stats`: prints the counters of one mount. */

import { MountError } from '../../errors.js'
import { mountedUnions } from '../../host/mounted-unions.js'
import { askCounters } from '../../resident/ask.js'
import type { Counters } from '../../server/questions.js'
import { oneWord, size, table } from '../table.js'
import { findMount } from './umount.js'

export interface Operation {
  requests: number
  /** Null if the transport does not count errors by operation. */
  errors: number | null
}

/** A value is null if the transport does not count it. */
export interface MountStats {
  mountpoint: string
  pid: number
  io: string
  /** The mount time, in milliseconds since 1970. */
  since: number
  requests: number
  errors: number
  /** Requests that wait for a job. */
  waiting: number
  /** Files and directories that the server has nodes for. */
  nodes: number | null
  openFiles: number | null
  copyUps: number | null
  copyUpBytes: number | null
  /** Keyed by the name of the request. */
  operations: Record<string, Operation>
}

export type StatsForm = 'text' | 'json' | 'prometheus'

/**
 * Reads the counters of the mount on a directory.
 * @throws {MountError}
 */
export const statsOf = async (path: string): Promise<MountStats> => {
  const mount = findMount(path)
  const failure = (what: string): MountError =>
    new MountError(`${mount.mountpoint}: ${what}`, {
      option: 'mountpoint',
      path: mount.mountpoint,
      code: 'EPERM',
    })
  const server = mountedUnions().find(one => one.mount.id === mount.id)?.server
  const [pid] = server?.pids ?? []
  if (pid === undefined || server?.marker === undefined)
    throw failure(
      'its server is not visible: it belongs to another user, or the mount is no union of tsoverlay',
    )
  const { marker } = server
  const counters = (await askCounters(pid, marker.questions, mount.device))?.[mount.device]
  if (counters?.['requests'] === undefined)
    throw failure(`its server, process ${pid}, does not answer: it is stopped or busy`)
  return readCounters(counters, { ...marker, mountpoint: mount.mountpoint, pid })
}

export const readCounters = (
  counters: Readonly<Counters>,
  { mountpoint, pid, io, since }: Pick<MountStats, 'mountpoint' | 'pid' | 'io' | 'since'>,
): MountStats => {
  const get = (name: string): number | null =>
    typeof counters[name] === 'number' ? counters[name] : null
  const operations: [string, Operation][] = []
  for (const key of Object.keys(counters).toSorted()) {
    const [, kind, name] = /^(op|native)\.(\w+)$/.exec(key) ?? []
    const requests = get(key)
    if (name === undefined || requests === null) continue
    const errors = kind === 'op' ? (get(`error.${name}`) ?? 0) : null
    operations.push([name, { requests, errors }])
  }
  return {
    mountpoint,
    pid,
    io,
    since,
    requests: get('requests') ?? 0,
    errors: get('errors') ?? 0,
    waiting: get('parked') ?? 0,
    nodes: get('nodes'),
    openFiles: get('files'),
    copyUps: get('copyups'),
    copyUpBytes: get('copyup.bytes'),
    operations: Object.fromEntries(operations),
  }
}

const text = (value: number | null): string => (value === null ? '-' : String(value))

export const asText = (stats: MountStats): string[] => {
  const bytes = stats.copyUpBytes
  const rows = [
    ['mountpoint', oneWord(stats.mountpoint)],
    ['process', text(stats.pid)],
    ['data mode', oneWord(stats.io)],
    ['requests', text(stats.requests)],
    ['errors', text(stats.errors)],
    ['waiting', text(stats.waiting)],
    ['nodes', text(stats.nodes)],
    ['open files', text(stats.openFiles)],
    ['copy-ups', text(stats.copyUps)],
    ['copied', bytes === null ? '-' : `${bytes} (${size(bytes)})`],
  ]
  const operations = Object.entries(stats.operations).toSorted(
    ([, one], [, other]) => other.requests - one.requests,
  )
  return [
    ...table(rows, new Set()),
    '',
    ...table(
      [
        ['OPERATION', 'REQUESTS', 'ERRORS'],
        ...operations.map(([name, { requests, errors }]) => [name, text(requests), text(errors)]),
      ],
      new Set([1, 2]),
    ),
  ]
}

/** Escapes a label's value for Prometheus' text format. */
const quoted = (value: string): string =>
  `"${value
    .replaceAll('\\', String.raw`\\`)
    .replaceAll('"', String.raw`\"`)
    .replaceAll('\n', String.raw`\n`)}"`

export const asPrometheus = (stats: MountStats): string[] => {
  const mountpoint = `mountpoint=${quoted(stats.mountpoint)}`
  const lines: string[] = []
  const add = (
    name: string,
    type: 'counter' | 'gauge',
    help: string,
    samples: readonly (readonly [labels: string, value: number | null])[],
  ): void => {
    const known = samples.filter(([, value]) => value !== null)
    if (known.length === 0) return
    lines.push(`# HELP tsoverlay_${name} ${help}`, `# TYPE tsoverlay_${name} ${type}`)
    for (const [labels, value] of known) lines.push(`tsoverlay_${name}{${labels}} ${value}`)
  }
  const operations = Object.entries(stats.operations)
  const byOperation = (value: (one: Operation) => number | null) =>
    operations.map(
      ([name, one]) => [`${mountpoint},operation=${quoted(name)}`, value(one)] as const,
    )
  const started = stats.since / 1000
  add(
    'requests_total',
    'counter',
    'Requests of the kernel.',
    byOperation(one => one.requests),
  )
  add(
    'operation_errors_total',
    'counter',
    'Requests that were answered with an error, by operation.',
    byOperation(one => one.errors),
  )
  add('errors_total', 'counter', 'Requests that were answered with an error.', [
    [mountpoint, stats.errors],
  ])
  add('waiting_requests', 'gauge', 'Requests that wait for a job.', [[mountpoint, stats.waiting]])
  add('nodes', 'gauge', 'Files and directories that the server has nodes for.', [
    [mountpoint, stats.nodes],
  ])
  add('open_files', 'gauge', 'Open files.', [[mountpoint, stats.openFiles]])
  add('copyups_total', 'counter', 'Files and directories that were copied up.', [
    [mountpoint, stats.copyUps],
  ])
  add('copyup_bytes_total', 'counter', 'Bytes of the files that were copied up.', [
    [mountpoint, stats.copyUpBytes],
  ])
  add('mount_time_seconds', 'gauge', 'When it was mounted, since 1970.', [[mountpoint, started]])
  return lines
}

export const showStats = async (path: string, form: StatsForm): Promise<void> => {
  const stats = await statsOf(path)
  if (form === 'json') console.log(JSON.stringify(stats))
  else for (const line of form === 'text' ? asText(stats) : asPrometheus(stats)) console.log(line)
}

/**
 * The identity of a process: its rights and its environment, as far as they matter for a mount. A
 * server serves only clients with the same identity, so it does nothing for a client that the
 * client could not do itself.
 */

import { closeSync, constants, fstatSync, openSync, readFileSync, readlinkSync } from 'node:fs'

import { O_CLOEXEC, O_PATH } from '../sys/constants.js'
import { namespaceKinds } from './runtime-directory.js'
import { readProc } from './processes.js'

/** Lines of /proc/PID/status, proc_pid_status(5). */
const STATUS = [
  'Uid',
  'Gid',
  'CapInh',
  'CapPrm',
  'CapEff',
  'CapBnd',
  'CapAmb',
  'NoNewPrivs',
  'Seccomp',
  'Seccomp_filters',
] as const

export type Identity = ReadonlyMap<string, string>

/**
 * Identifies the directory behind a link of /proc: the mount that it is reached through, and its
 * inode.
 */
export const directoryKey = (path: string): string => {
  const fd = openSync(path, O_PATH | constants.O_DIRECTORY | O_CLOEXEC)
  try {
    const mount = /^mnt_id:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1]
    const stat = fstatSync(fd, { bigint: true })
    return `${mount}:${stat.dev}:${stat.ino}`
  } finally {
    closeSync(fd)
  }
}

/**
 * Lines of /proc/PID/limits. With a lower limit than its client, a server could write smaller
 * files, use less memory or live shorter. Other limits are left out: they count the processes of a
 * user, or a shared server uses less of the resource. Also, podman changes `Max processes` and `Max
 * open files` for its children.
 */
const LIMITS = ['Max cpu time', 'Max file size', 'Max data size', 'Max address space'] as const

const lineOf = (status: string, name: string): string =>
  new RegExp(`^${name}:[ \\t]*(.*?)[ \\t]*$`, 'm').exec(status)?.[1] ?? ''

/** The soft limit, the hard limit and the unit. */
const limitOf = (limits: string, name: string): string =>
  new RegExp(`^${name} +(.*?) *$`, 'm').exec(limits)?.[1]?.replaceAll(/ +/g, ' ') ?? ''

/**
 * All groups. The primary group is included whether or not it is also listed as a supplementary
 * group.
 */
const groupsOf = (status: string): string => {
  const [own = '', more = ''] = ['Gid', 'Groups'].map(
    name => new RegExp(`^${name}:\\s(.*)$`, 'm').exec(status)?.[1] ?? '',
  )
  const all = new Set([own.split('\t')[1], ...more.split(' ')])
  all.delete('')
  return [...all]
    .map(Number)
    .toSorted((a, b) => a - b)
    .join(' ')
}

/** The label of the security module; empty if there is none or if it can't be read. */
const labelOf = (pid: number | 'self'): string => readProc(pid, 'attr/current') ?? ''

/** @returns undefined if the process has ended or can't be inspected */
export const identityOf = (pid: number | 'self'): Identity | undefined => {
  const status = readProc(pid, 'status')
  const limits = readProc(pid, 'limits')
  if (status === undefined || limits === undefined) return undefined
  const identity = new Map<string, string>()
  for (const name of STATUS) identity.set(name, lineOf(status, name))
  identity.set('groups', groupsOf(status))
  try {
    for (const kind of namespaceKinds)
      identity.set(`${kind} namespace`, readlinkSync(`/proc/${pid}/ns/${kind}`))
    identity.set('root directory', directoryKey(`/proc/${pid}/root`))
  } catch {
    return undefined
  }
  identity.set('label', labelOf(pid))
  for (const name of LIMITS) identity.set(name, limitOf(limits, name))
  return identity
}

/**
 * Whether all processes with the same number of seccomp filters as this identity have the same
 * filters. The kernel does not show the filters. But filters are inherited and never removed. The
 * filters of process 1 are the container's, and a process with as many filters as process 1 has no
 * others.
 * @param init the status of process 1
 */
export const filtersAreShared = (
  identity: Identity,
  init = readProc(1, 'status') ?? '',
): boolean => {
  if (/^0?$/.test(identity.get('Seccomp') ?? '')) return true
  const filters = identity.get('Seccomp_filters') ?? ''
  // Linux before 5.9 does not show their number.
  return filters !== '' && lineOf(init, 'Seccomp_filters') === filters
}

/** The name of the first different item; undefined if both are equal. */
export const difference = (a: Identity, b: Identity): string | undefined =>
  [...a.keys()].find(name => a.get(name) !== b.get(name))

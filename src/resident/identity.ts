/**
 * What a process may do and where it lives, as far as it makes a difference to a mount. A server
 * acts for those alone who are its own like in all of it: whatever it does for them they could have
 * done themselves.
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

/** The directory behind a link of /proc: the mount it was reached through, and the inode there. */
export const placeOf = (path: string): string => {
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
 * Of /proc/PID/limits, what a server would do less of than its client: write larger files, take
 * more memory, live longer. Others are left out, since they limit the processes of a user, or a
 * server that is shared takes less of what they limit; and podman raises and lowers some of them
 * for what it starts: `Max processes`, `Max open files`.
 */
const LIMITS = ['Max cpu time', 'Max file size', 'Max data size', 'Max address space'] as const

const lineOf = (status: string, name: string): string =>
  new RegExp(`^${name}:[ \\t]*(.*?)[ \\t]*$`, 'm').exec(status)?.[1] ?? ''

/** The soft and the hard one, and the unit. */
const limitOf = (limits: string, name: string): string =>
  new RegExp(`^${name} +(.*?) *$`, 'm').exec(limits)?.[1]?.replaceAll(/ +/g, ' ') ?? ''

/** All groups: whether a process' own is listed once more makes no difference. */
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

/** A process without a security module's label has none that can be read. */
const labelOf = (pid: number | 'self'): string => readProc(pid, 'attr/current') ?? ''

/** Undefined: the process is gone, or may not be looked into. */
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
    identity.set('root directory', placeOf(`/proc/${pid}/root`))
  } catch {
    return undefined
  }
  identity.set('label', labelOf(pid))
  for (const name of LIMITS) identity.set(name, limitOf(limits, name))
  return identity
}

/**
 * Whether processes that have as many seccomp filters as this identity have the same ones. The
 * kernel tells nobody what they are. Filters are inherited, and none is ever taken off: those of
 * process 1 are the container's, and who has no more of them has no others.
 * @param init the status of process 1
 */
export const filtersAreShared = (
  identity: Identity,
  init = readProc(1, 'status') ?? '',
): boolean => {
  if (/^0?$/.test(identity.get('Seccomp') ?? '')) return true
  const filters = identity.get('Seccomp_filters') ?? ''
  // Linux before 5.9 does not count them.
  return filters !== '' && lineOf(init, 'Seccomp_filters') === filters
}

/** What is different first; undefined: nothing is. */
export const difference = (one: Identity, other: Identity): string | undefined =>
  [...one.keys()].find(name => one.get(name) !== other.get(name))

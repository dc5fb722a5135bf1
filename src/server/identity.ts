/**
 * What a process may do and where it lives, as far as it makes a difference to a mount. A server acts for those alone who
 * are its own like in all of it: whatever it does for them they could have done themselves.
 */

import { closeSync, constants, fstatSync, openSync, readFileSync, readlinkSync } from 'node:fs'

import { O_CLOEXEC, O_PATH } from '../sys/constants.js'
import { namespaceKinds } from './runtime-folder.js'
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

/** The folder behind a link of /proc: the mount it was reached through, and the inode there. */
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
 * Limits as a text. Node has raised its soft limit of descriptors to the hard one before anybody can look, so that one does not
 * count.
 */
const limitsOf = (text: string): string =>
  text.replace(/^(Max open files\s+)\S+/m, '$1-').replaceAll(/ +/g, ' ')

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
  for (const name of STATUS)
    identity.set(name, new RegExp(`^${name}:[ \\t]*(.*?)[ \\t]*$`, 'm').exec(status)?.[1] ?? '')
  identity.set('groups', groupsOf(status))
  try {
    for (const kind of namespaceKinds)
      identity.set(`${kind} namespace`, readlinkSync(`/proc/${pid}/ns/${kind}`))
    identity.set('root folder', placeOf(`/proc/${pid}/root`))
  } catch {
    return undefined
  }
  identity.set('label', labelOf(pid))
  identity.set('limits', limitsOf(limits))
  return identity
}

/** What is different first; undefined: nothing is. */
export const difference = (one: Identity, other: Identity): string | undefined =>
  [...one.keys()].find(name => one.get(name) !== other.get(name))

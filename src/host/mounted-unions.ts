/**
 * Lists the unions in this process's mount namespace, and their servers, as far as /proc shows
 * them.
 */

import { processes } from './mount-namespaces.js'
import { markersOf, type PublishedMarker } from './markers.js'
import { readMountInfo, type MountInfo } from './proc-mounts.js'
import { fuseConnectionsOf, isNamedIn, mountHolderOf, titleOf } from './servers.js'

/** The default type of a mount (option `subtype`). */
const TYPE = 'fuse.tsoverlay'

export interface Mounted {
  mount: MountInfo
  /** Undefined: it has ended, or belongs to another user. */
  server: MountServer | undefined
}

export interface MountServer {
  /**
   * The process that holds the mount, which users know as the server, comes first. The others work
   * for it.
   */
  pids: readonly number[]
  /** Its marker of the mount, if any. */
  marker: PublishedMarker | undefined
  /** The number of mounts that it serves. */
  mounts: number
}

interface Process {
  pid: number
  /** Undefined: the kernel does not report them. */
  connections: ReadonlySet<string> | undefined
  /** The markers of its mounts. Any process can publish markers, so they prove nothing. */
  markers: readonly PublishedMarker[]
}

/** In the order of mountinfo: a mount on top of another one comes later. */
export const mountedUnions = (): Mounted[] => {
  const mounts = readMountInfo().filter(({ type }) => type.startsWith('fuse'))
  if (mounts.length === 0) return []
  const candidates = processes().map(readProcess).filter(mayServe)
  return mounts
    .map(mount => ({ mount, server: serverOf(mount, candidates) }))
    .filter(({ mount, server }) => mount.type === TYPE || server?.marker !== undefined)
}

const readProcess = (pid: number): Process => ({
  pid,
  connections: fuseConnectionsOf(pid),
  markers: markersOf(pid).filter(isWellTyped),
})

/** Another user's process may write arbitrary contents, so the types are checked. */
const isWellTyped = ({
  device,
  lower,
  upper,
  work,
  io,
  since,
  writable,
}: PublishedMarker): boolean =>
  [device, io, upper ?? '', work ?? ''].every(word => typeof word === 'string') &&
  Array.isArray(lower) &&
  lower.every(path => typeof path === 'string') &&
  Number.isFinite(since) &&
  typeof writable === 'boolean'

const mayServe = ({ connections, markers }: Process): boolean =>
  connections === undefined || connections.size > 0 || markers.length > 0

const serverOf = (mount: MountInfo, candidates: readonly Process[]): MountServer | undefined => {
  const serving = candidates
    .filter(({ pid, connections, markers }) =>
      connections === undefined
        ? markers.some(one => one.device === mount.device) || isNamedIn(mount, titleOf(pid))
        : connections.has(mount.device),
    )
    .map(({ pid }) => pid)
  const pids = [...new Set([...serving.map(mountHolderOf), ...serving])]
  if (pids.length === 0) return undefined
  for (const pid of pids) {
    const markers = candidates.find(one => one.pid === pid)?.markers ?? []
    const marker = markers.find(one => one.device === mount.device)
    if (marker === undefined) continue
    return { pids: [pid, ...pids.filter(one => one !== pid)], marker, mounts: markers.length }
  }
  return { pids, marker: undefined, mounts: 1 }
}

/**
 * Finds the holder of the lock of an upper directory or workdir (lock.ts), and waits for a holder
 * that is about to release it. It uses only /proc and takes no lock.
 */

import { readFileSync, statSync } from 'node:fs'

import type { MountError } from '../errors.js'
import { busy, type Wanted } from './in-use.js'
import { markersOf } from './markers.js'
import { describe, mountPlaces, type MountPlace } from './mount-namespaces.js'
import { fuseConnectionsOf, fuseMountsOf, listDirectory, mountHolderOf } from './servers.js'

/** The process that holds a lock. */
export interface Holder {
  /** 0: the process is in another pid namespace. */
  pid: number
  /** Its FUSE mounts, as in its own mount namespace. */
  mountpoints: string[]
  /** The process that serves the mount for it, if that is another one. */
  server?: number
  /**
   * The device of the mount that has the lock, if the process publishes markers. '': none of its
   * mounts has the lock.
   */
  device?: string
}

/**
 * How long to wait for a holder that is no longer mounted, in milliseconds: umount(8) returns
 * before the server has closed its files.
 */
export const PATIENCE_MS = 3000
const POLL_MS = 10
/**
 * When to search other mount namespaces for the mount, in milliseconds. The search takes some
 * milliseconds.
 */
const LOOK_MS = 200

/** A locked directory and its holder, if known. */
export interface HeldLock {
  wanted: Omit<Wanted, 'key'>
  holder: Holder | undefined
}

/** @throws {MountError} EBUSY: the holder has a live mount, or does not release the lock in time */
export const awaitRelease = (patience: number, look: () => HeldLock | false): void => {
  const until = Date.now() + patience
  let lookAt = Date.now() + LOOK_MS
  for (;;) {
    const held = look()
    if (held === false) return
    const { wanted, holder } = held
    if (holder !== undefined && holder.mountpoints.length > 0) throw inUse(wanted, holder)
    const late = Date.now() >= until
    if (late || Date.now() >= lookAt) {
      const places = holder === undefined ? [] : mountsElsewhere(holder)
      if (late || places.length > 0) throw inUse(wanted, holder, places)
      lookAt = until
    }
    pause(POLL_MS)
  }
}

/**
 * Checks whether another tsoverlay has locked a directory above (kernel: ovl_check_layer). It reads
 * /proc rather than try the locks: a trial would make a concurrent mount fail. Any process may lock
 * a directory, so a lock counts only if its holder serves a FUSE mount.
 *
 * @param above the directories above the upper directory and the workdir
 * @param impatient do not wait for a mount that is about to end
 * @throws {MountError} EBUSY: a live mount uses one of them
 */
export const checkAbove = (above: readonly Wanted[], impatient = false): void => {
  const numbers = new Set(above.map(({ key }) => key.slice(key.indexOf(':') + 1)))
  awaitRelease(impatient ? 0 : PATIENCE_MS, () => {
    for (const pid of new Set(lockers(numbers))) {
      const wanted = lockedBy(pid, above, numbers)
      if (wanted === undefined || fuseConnectionsOf(pid)?.size === 0) continue
      return { wanted, holder: holderOf(pid, wanted.key) }
    }
    return false
  })
}

const FLOCK = /^\d+: FLOCK\s+\S+\s+\S+\s+(-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) /

/** The processes that hold a flock on an inode with one of these numbers. */
const lockers = (numbers: ReadonlySet<string>): number[] =>
  readLocks()
    .split('\n')
    .map(line => FLOCK.exec(line))
    .filter(fields => numbers.has(fields?.[4] ?? ''))
    .map(fields => Number(fields![1]))
    .filter(pid => pid > 0)

/**
 * The directory that a process has locked. It is found through the process's descriptors, because
 * the device in /proc/locks may differ from that of stat(2).
 */
const lockedBy = (
  pid: number,
  above: readonly Wanted[],
  numbers: ReadonlySet<string>,
): Wanted | undefined => {
  for (const fd of listDirectory(`/proc/${pid}/fdinfo`)) {
    try {
      const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1')
      const ino = /^lock:.* FLOCK .*:(\d+) \d+ EOF$/m.exec(info)?.[1]
      if (ino === undefined || !numbers.has(ino)) continue
      const stat = statSync(`/proc/${pid}/fd/${fd}`, { bigint: true })
      const found = above.find(({ key }) => key === `${stat.dev}:${stat.ino}`)
      if (found !== undefined) return found
    } catch {
      // closed meanwhile
    }
  }
  return undefined
}

/** The places where a process serves mounts outside its own mount namespace. */
const mountsElsewhere = ({ server = 0, device }: Holder): MountPlace[] => {
  if (device !== undefined) return device === '' ? [] : mountPlaces(new Set([device]))
  const served = server === 0 ? undefined : fuseConnectionsOf(server)
  return served === undefined ? [] : mountPlaces(served)
}

const inUse = (
  wanted: Omit<Wanted, 'key'>,
  holder: Holder | undefined,
  places: readonly MountPlace[] = [],
): MountError => {
  const [user, wayOut] =
    holder === undefined || holder.pid === 0
      ? ['another process', 'end that first']
      : holder.mountpoints.length > 0
        ? [
            `process ${holder.pid}, mounted on ${holder.mountpoints.join(' or ')}`,
            `unmount that first: tsoverlay umount ${holder.mountpoints[0]}`,
          ]
        : places.length > 0
          ? [
              `process ${holder.pid}, which still serves a mount ${places.map(describe).join(', and ')}`,
              'unmount that first',
            ]
          : [
              `process ${holder.pid}, which has no mount any more but still serves open files`,
              `close those files or end the process`,
            ]
  return busy(wanted, `${user}; ${wayOut}`)
}

const cell = new Int32Array(new SharedArrayBuffer(4))
const pause = (ms: number): void => void Atomics.wait(cell, 0, 0, ms)

export const readLocks = (): string => {
  try {
    return readFileSync('/proc/locks', 'latin1')
  } catch {
    return ''
  }
}

/**
 * @param pid the process that has locked a directory
 * @param key the directory's key (in-use.ts:Wanted)
 */
export const holderOf = (pid: number, key: string): Holder => {
  const mountHolder = mountHolderOf(pid)
  const holder = { pid: mountHolder, server: pid }
  const markers = markersOf(mountHolder)
  if (markers.length === 0) return { ...holder, mountpoints: fuseMountsOf(pid) }
  const { device = '' } = markers.find(({ keys }) => keys.includes(key)) ?? {}
  return { ...holder, mountpoints: device === '' ? [] : fuseMountsOf(pid, device), device }
}

/**
 * The pid in /proc/locks that holds a flock on an inode. An entry with the same device is preferred
 * but not required: btrfs shows another device there than in stat(2).
 */
export const lockOwner = (
  locks: string,
  major: number,
  minor: number,
  ino: string,
): number | undefined => {
  let sameInode: number | undefined
  for (const line of locks.split('\n')) {
    const fields = FLOCK.exec(line)
    if (fields?.[4] !== ino) continue
    const pid = Math.max(0, Number(fields[1]))
    const devices = [fields[2], fields[3]].map(hex => Number.parseInt(hex ?? '', 16))
    if (devices[0] === major && devices[1] === minor) return pid
    sameInode ??= pid
  }
  return sameInode
}

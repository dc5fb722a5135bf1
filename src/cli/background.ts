/**
 * The parent of a background server, as the server sees it: a shell that runs the launcher script
 * (tsoverlay.sh), or Node (daemon.ts). The parent waits for the mount. The server sends it a signal
 * when the mount is live.
 */

import { closeSync, fstatSync, lstatSync, readlinkSync, unlinkSync } from 'node:fs'
import process, { env } from 'node:process'

/** The environment variable with the process id of the server's parent. */
export const PARENT = 'TSOVERLAY_LAUNCHER'

/** The signal that reports a live mount. Node reserves SIGUSR1 for its debugger. */
export const LIVE = 'SIGUSR2'

/**
 * Reads the parent's process id and removes it from the environment, because processes that this
 * server starts later have another parent.
 */
export const takeParentPid = (): number => {
  const pid = Number(env[PARENT])
  Reflect.deleteProperty(env, PARENT)
  return pid
}

/** The environment variable with the descriptor of the lock file that the parent has locked. */
const LOCK_FD = 'TSOVERLAY_STARTING'

/** A lock file that this process holds through an inherited descriptor. */
interface LockFile {
  fd: number
  path: string
}

/** @returns undefined if the parent has locked no file */
export const takeLockFile = (): LockFile | undefined => {
  const fd = Number(env[LOCK_FD] ?? -1)
  Reflect.deleteProperty(env, LOCK_FD)
  try {
    // The environment is untrusted, so the descriptor is checked against the file.
    const path = readlinkSync(`/proc/self/fd/${fd}`)
    const [open, named] = [fstatSync(fd), lstatSync(path)]
    const isSame = named.isFile() && named.ino === open.ino && named.dev === open.dev
    return isSame && /\/\.starting-[^/]+$/.test(path) ? { fd, path } : undefined
  } catch {
    return undefined
  }
}

/**
 * Keeps the lock file locked while other launcher scripts wait for this server. The lock file is
 * removed when they may continue, or when this process exits. Child processes do not inherit it:
 * Node closes inherited descriptors when it starts a program.
 * @returns a function that releases the lock
 */
export const holdLockFile = (file: LockFile | undefined): (() => void) => {
  if (file === undefined) return () => {}
  let locked = true
  const release = (): void => {
    if (!locked) return
    locked = false
    process.off('exit', release)
    try {
      unlinkSync(file.path)
    } catch {
      // already removed
    }
    closeSync(file.fd)
  }
  process.on('exit', release)
  return release
}

/**
 * The environment variable with the process id of a resident server that did not answer the parent.
 */
const UNANSWERED = 'TSOVERLAY_UNANSWERED'

/** @returns that process id, or 0 */
export const takeUnanswered = (): number => {
  const pid = Number(env[UNANSWERED] ?? 0)
  Reflect.deleteProperty(env, UNANSWERED)
  return pid
}

/**
 * Signals the parent that the mount is live.
 * @returns false if the parent has ended. Then no process knows of the mount. The signal is not
 *   sent, because another process may have the parent's process id.
 */
export const signalLive = (parent: number): boolean => {
  // Not imported by name: an import would keep the value that it had at start-up.
  if (process.ppid !== parent) return false
  try {
    return process.kill(parent, LIVE)
  } catch {
    return false // the parent has ended since the check
  }
}

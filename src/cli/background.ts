/**
 * The process that was asked for a mount in the background and waits for it, seen from the server:
 * a shell (tsoverlay.sh) or Node (daemon.ts). It is the server's parent, and gets a signal when the
 * mount is live.
 */

import { closeSync, fstatSync, lstatSync, readlinkSync, unlinkSync } from 'node:fs'
import process, { env } from 'node:process'

/** In the server's environment: the process id of its launcher. */
export const LAUNCHER = 'TSOVERLAY_LAUNCHER'

/** What says that the mount is live. Node keeps SIGUSR1 for itself. */
export const LIVE = 'SIGUSR2'

/** Its process id, for this process alone: what is started later has another parent. */
export const takeLauncher = (): number => {
  const pid = Number(env[LAUNCHER])
  Reflect.deleteProperty(env, LAUNCHER)
  return pid
}

/** In the environment: the descriptor of the file that the launcher has locked. */
const STARTING = 'TSOVERLAY_STARTING'

/** A file that is locked through a descriptor of this process. */
interface Locked {
  fd: number
  path: string
}

/** Undefined: the launcher has locked none. */
export const takeStarting = (): Locked | undefined => {
  const fd = Number(env[STARTING] ?? -1)
  Reflect.deleteProperty(env, STARTING)
  try {
    // The environment may come from anywhere.
    const path = readlinkSync(`/proc/self/fd/${fd}`)
    const [open, there] = [fstatSync(fd), lstatSync(path)]
    const isIt = there.isFile() && there.ino === open.ino && there.dev === open.dev
    return isIt && /\/\.starting-[^/]+$/.test(path) ? { fd, path } : undefined
  } catch {
    return undefined
  }
}

/**
 * Keeps the file locked for which other launchers wait. The file goes when they may go on, or this
 * process ends. What this process starts does not have it: Node closes what it has inherited where
 * it starts another program.
 * @returns has them go on
 */
export const keepLocked = (file: Locked | undefined): (() => void) => {
  if (file === undefined) return () => {}
  let locked = true
  const end = (): void => {
    if (!locked) return
    locked = false
    process.off('exit', end)
    try {
      unlinkSync(file.path)
    } catch {
      // gone already
    }
    closeSync(file.fd)
  }
  process.on('exit', end)
  return end
}

/** In the environment: the process of a resident server that the launcher has asked in vain. */
const UNANSWERED = 'TSOVERLAY_UNANSWERED'

/** That process, or 0. */
export const takeUnanswered = (): number => {
  const pid = Number(env[UNANSWERED] ?? 0)
  Reflect.deleteProperty(env, UNANSWERED)
  return pid
}

/**
 * Tells it; false where it is gone, and nobody knows of the mount: another process may have its
 * number by now.
 */
export const tellLive = (launcher: number): boolean => {
  // Not imported by its name, which would keep the number that it had at the start.
  if (process.ppid !== launcher) return false
  try {
    return process.kill(launcher, LIVE)
  } catch {
    return false // gone since
  }
}

/**
 * The directory of a resident server: `BASE/NAME/BUILD-MNT-PID-NET-TIME-USER`. The parts after
 * BUILD are the inode numbers of its namespaces, because the content of /proc/PID depends on them.
 * tsoverlay.sh uses the same rules. BASE must be a directory that no other user can change: /run
 * for root of the initial user namespace, regardless of the environment, otherwise
 * $XDG_RUNTIME_DIR.
 */

import { existsSync, lstatSync, mkdirSync, readlinkSync } from 'node:fs'

import { inInitialNamespace } from '../sys/proc.js'
import { build } from './build.js'

/**
 * The environment variable with NAME, one path component (default `tsoverlay`). Servers of
 * different names are independent. If it is empty no resident server is asked or left running.
 */
export const NAME = 'TSOVERLAY_SERVER'

const DEFAULT_NAME = 'tsoverlay'

/**
 * The namespaces in the directory's name, in this order. Linux before 5.6 has no time namespaces.
 */
export const namespaceKinds = ['mnt', 'pid', 'net', 'time', 'user'].filter(kind =>
  existsSync(`/proc/self/ns/${kind}`),
)

export interface Owner {
  uid: number
  /** Whether the process is in the initial user namespace. */
  initial: boolean
  env: Readonly<Record<string, string | undefined>>
}

const currentOwner = (): Owner => ({
  uid: process.geteuid?.() ?? -1,
  initial: inInitialNamespace(),
  env: process.env,
})

/**
 * Why a directory is not private to the user: another owner, a symlink, or a mode other than 0700.
 * Undefined if it is private.
 */
export const whyForeign = (path: string, uid: number): string | undefined => {
  try {
    const stat = lstatSync(path)
    if (!stat.isDirectory()) return 'is no directory'
    if (stat.uid !== uid) return `belongs to user ${stat.uid}`
    if ((stat.mode & 0o7777) !== 0o700) return `has mode ${(stat.mode & 0o7777).toString(8)}`
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** `BASE/NAME`; undefined if there is no safe directory or if resident servers are turned off. */
export const runtimeDirectory = (
  { uid, initial, env }: Owner = currentOwner(),
): string | undefined => {
  const name = env[NAME] ?? DEFAULT_NAME
  if (name === '' || name.startsWith('.') || name.includes('/')) return undefined
  if (uid === 0 && initial) return `/run/${name}`
  const base = env['XDG_RUNTIME_DIR'] ?? ''
  if (!base.startsWith('/') || whyForeign(base, uid) !== undefined) return undefined
  return `${base.replace(/\/+$/, '')}/${name}`
}

/**
 * Creates the directory if it is missing.
 * @returns why it can't be used; undefined if it can
 */
export const prepareDirectory = (path: string, uid = currentOwner().uid): string | undefined => {
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch {
    // it exists, or whyForeign reports the error
  }
  return whyForeign(path, uid)
}

/** The name of the directory of this process' server; undefined if /proc can't be read. */
export const directoryName = (): string | undefined => {
  try {
    const numbers = namespaceKinds.map(kind =>
      readlinkSync(`/proc/self/ns/${kind}`).replaceAll(/\D/g, ''),
    )
    return [build, ...numbers].join('-')
  } catch {
    return undefined
  }
}

/** The path of the directory. */
export const serverDirectory = (): string | undefined => {
  const [top, name] = [runtimeDirectory(), directoryName()]
  return top === undefined || name === undefined ? undefined : `${top}/${name}`
}

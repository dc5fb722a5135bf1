/**
 * The directory in which a resident server is found: `BASE/NAME/BUILD-MNT-PID-NET-TIME-USER`, where
 * all but the first are the numbers of its namespaces: what is told of a process in /proc is told
 * in terms of them. tsoverlay.sh finds it by the same rules. BASE is a directory that nobody else
 * can change: /run for root of the initial user namespace, whatever the environment says, else
 * $XDG_RUNTIME_DIR.
 */

import { existsSync, lstatSync, mkdirSync, readlinkSync } from 'node:fs'

import { inInitialNamespace } from '../sys/proc.js'
import { build } from './build.js'

/**
 * In the environment: NAME, one component of a path (`tsoverlay`). Servers of different names know
 * nothing of each other. Empty: no resident server is asked, and none is left.
 */
export const NAME = 'TSOVERLAY_SERVER'

const DEFAULT_NAME = 'tsoverlay'

/**
 * The namespaces that the names of the directories tell, in their order. Linux before 5.6 has none
 * for time.
 */
export const namespaceKinds = ['mnt', 'pid', 'net', 'time', 'user'].filter(kind =>
  existsSync(`/proc/self/ns/${kind}`),
)

export interface Who {
  uid: number
  /** Of the initial user namespace. */
  initial: boolean
  env: Readonly<Record<string, string | undefined>>
}

const self = (): Who => ({
  uid: process.geteuid?.() ?? -1,
  initial: inInitialNamespace(),
  env: process.env,
})

/**
 * Why a directory is not one's own: another owner, a symlink, others may enter. Undefined: it is.
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

/** `BASE/NAME`; undefined: there is no safe place, or none is wanted. */
export const runtimeDirectory = ({ uid, initial, env }: Who = self()): string | undefined => {
  const name = env[NAME] ?? DEFAULT_NAME
  if (name === '' || name.startsWith('.') || name.includes('/')) return undefined
  if (uid === 0 && initial) return `/run/${name}`
  const base = env['XDG_RUNTIME_DIR'] ?? ''
  if (!base.startsWith('/') || whyForeign(base, uid) !== undefined) return undefined
  return `${base.replace(/\/+$/, '')}/${name}`
}

/**
 * Makes the directory where it is missing.
 * @returns why it can't be used; undefined: it can
 */
export const prepareDirectory = (path: string, uid = self().uid): string | undefined => {
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch {
    // it is there, or whyForeign says what is wrong
  }
  return whyForeign(path, uid)
}

/** The name of the directory of this process' server; undefined: /proc does not tell. */
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

/** The directory itself. */
export const serverDirectory = (): string | undefined => {
  const [top, name] = [runtimeDirectory(), directoryName()]
  return top === undefined || name === undefined ? undefined : `${top}/${name}`
}

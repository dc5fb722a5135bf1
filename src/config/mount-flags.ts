/**
 * The words for a mount's own flags, as mount(8) has them, and what each does to the MS_* bits of
 * mount(2). Shared by the library and the command line; a leaf apart from the constants.
 */

import {
  MS_DIRSYNC,
  MS_LAZYTIME,
  MS_NOATIME,
  MS_NODEV,
  MS_NODIRATIME,
  MS_NOEXEC,
  MS_NOSUID,
  MS_NOSYMFOLLOW,
  MS_RDONLY,
  MS_RELATIME,
  MS_STRICTATIME,
  MS_SYNCHRONOUS,
} from '../sys/constants.js'

/** A word for a mount flag, as mount(8) has it. */
export type MountFlag =
  | 'ro'
  | 'rw'
  | 'nosuid'
  | 'suid'
  | 'nodev'
  | 'dev'
  | 'noexec'
  | 'exec'
  | 'noatime'
  | 'atime'
  | 'nodiratime'
  | 'diratime'
  | 'relatime'
  | 'norelatime'
  | 'strictatime'
  | 'nostrictatime'
  | 'lazytime'
  | 'nolazytime'
  | 'sync'
  | 'async'
  | 'dirsync'
  | 'nosymfollow'
  | 'symfollow'

const words: Readonly<Record<MountFlag, readonly [set: number, clear: number]>> = {
  ro: [MS_RDONLY, 0],
  rw: [0, MS_RDONLY],
  nosuid: [MS_NOSUID, 0],
  suid: [0, MS_NOSUID],
  nodev: [MS_NODEV, 0],
  dev: [0, MS_NODEV],
  noexec: [MS_NOEXEC, 0],
  exec: [0, MS_NOEXEC],
  noatime: [MS_NOATIME, MS_RELATIME | MS_STRICTATIME],
  atime: [0, MS_NOATIME],
  nodiratime: [MS_NODIRATIME, 0],
  diratime: [0, MS_NODIRATIME],
  relatime: [MS_RELATIME, MS_NOATIME | MS_STRICTATIME],
  norelatime: [0, MS_RELATIME],
  strictatime: [MS_STRICTATIME, MS_NOATIME | MS_RELATIME],
  nostrictatime: [0, MS_STRICTATIME],
  lazytime: [MS_LAZYTIME, 0],
  nolazytime: [0, MS_LAZYTIME],
  sync: [MS_SYNCHRONOUS, 0],
  async: [0, MS_SYNCHRONOUS],
  dirsync: [MS_DIRSYNC, 0],
  nosymfollow: [MS_NOSYMFOLLOW, 0],
  symfollow: [0, MS_NOSYMFOLLOW],
}

export const mountFlagWords: readonly string[] = Object.keys(words)

export const isMountFlag = (word: string): word is MountFlag => Object.hasOwn(words, word)

/** The MS_* bits after one more word; a later word wins over an earlier one. */
export const addMountFlag = (flags: number, word: MountFlag): number => {
  const [set, clear] = words[word]
  return (flags & ~clear) | set
}

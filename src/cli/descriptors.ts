/**
 * Closes inherited descriptors. A server lives long: if it keeps the write end of a pipe of another
 * program, the pipe's reader never sees the end of the file.
 */

import { closeSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'

interface Descriptor {
  fd: number
  target: string
  flags: number
}

const O_ACCMODE = 3
const O_CLOEXEC = 0o2000000

const openNumbers = (): string[] => {
  try {
    return readdirSync('/proc/self/fd')
  } catch {
    return [] // /proc is not mounted, or no descriptor is free: the mount reports the error later
  }
}

const listDescriptors = (): Descriptor[] => {
  const found: Descriptor[] = []
  for (const name of openNumbers()) {
    try {
      const target = readlinkSync(`/proc/self/fd/${name}`)
      const info = readFileSync(`/proc/self/fdinfo/${name}`, 'latin1')
      const flags = Number.parseInt(/^flags:\s*([0-7]+)/m.exec(info)?.[1] ?? '0', 8)
      found.push({ fd: Number(name), target, flags })
    } catch {
      // the descriptor of this directory listing, already closed
    }
  }
  return found
}

/**
 * Selects the inherited descriptors. Node opens its own with O_CLOEXEC, but sets that flag on some
 * inherited descriptors, too. So the type decides as well: Node's own descriptors are anonymous
 * inodes, /dev/null, and pipes of which this process holds both ends.
 */
export const foreignDescriptors = (
  descriptors: readonly Descriptor[],
  keep: readonly number[],
): number[] => {
  const accessModes = new Map<string, Set<number>>()
  for (const { target, flags } of descriptors) {
    if (!target.startsWith('pipe:') || (flags & O_CLOEXEC) === 0) continue
    const modes = accessModes.get(target) ?? new Set()
    accessModes.set(target, modes.add(flags & O_ACCMODE))
  }
  return descriptors
    .filter(({ fd, target, flags }) => {
      if (fd <= 2 || keep.includes(fd)) return false
      if ((flags & O_CLOEXEC) === 0) return true
      if (target.startsWith('anon_inode:') || target === '/dev/null') return false
      return (accessModes.get(target)?.size ?? 0) < 2
    })
    .map(({ fd }) => fd)
}

/**
 * Closes the inherited descriptors above standard error. It must run before the process opens any
 * descriptor of its own.
 * @param keep descriptors to leave open
 */
export const closeForeignDescriptors = (keep: readonly number[] = []): void => {
  const channel = Number(process.env['NODE_CHANNEL_FD'] ?? -1)
  for (const fd of foreignDescriptors(listDescriptors(), [...keep, channel])) {
    try {
      closeSync(fd)
    } catch {
      // already closed
    }
  }
}

/**
 * Descriptors that the process did not open itself. A server lives long: one that keeps, say, the
 * write end of somebody's pipe would make its reader wait for ever.
 */

import { closeSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'

interface Descriptor {
  fd: number
  target: string
  flags: number
}

const O_ACCMODE = 3
const O_CLOEXEC = 0o2000000

const numbers = (): string[] => {
  try {
    return readdirSync('/proc/self/fd')
  } catch {
    return [] // /proc is not mounted, or no descriptor is left: what is to be mounted says so
  }
}

const list = (): Descriptor[] => {
  const found: Descriptor[] = []
  for (const name of numbers()) {
    try {
      const target = readlinkSync(`/proc/self/fd/${name}`)
      const info = readFileSync(`/proc/self/fdinfo/${name}`, 'latin1')
      const flags = Number.parseInt(/^flags:\s*([0-7]+)/m.exec(info)?.[1] ?? '0', 8)
      found.push({ fd: Number(name), target, flags })
    } catch {
      // the descriptor of this listing, closed by now
    }
  }
  return found
}

/**
 * Which of them were inherited. Node opens its own with O_CLOEXEC, but sets that flag on some of
 * the inherited ones too, so the kind decides as well: Node's own are anonymous inodes, /dev/null,
 * and pipes of which it has both ends.
 */
export const foreignDescriptors = (
  descriptors: readonly Descriptor[],
  keep: readonly number[],
): number[] => {
  const ends = new Map<string, Set<number>>()
  for (const { target, flags } of descriptors) {
    if (!target.startsWith('pipe:') || (flags & O_CLOEXEC) === 0) continue
    const modes = ends.get(target) ?? new Set()
    ends.set(target, modes.add(flags & O_ACCMODE))
  }
  return descriptors
    .filter(({ fd, target, flags }) => {
      if (fd <= 2 || keep.includes(fd)) return false
      if ((flags & O_CLOEXEC) === 0) return true
      if (target.startsWith('anon_inode:') || target === '/dev/null') return false
      return (ends.get(target)?.size ?? 0) < 2
    })
    .map(({ fd }) => fd)
}

/**
 * Closes what was inherited above standard error. Must run before the process opens anything of its
 * own.
 * @param keep descriptors to leave open all the same
 */
export const closeForeignDescriptors = (keep: readonly number[] = []): void => {
  const channel = Number(process.env['NODE_CHANNEL_FD'] ?? -1)
  for (const fd of foreignDescriptors(list(), [...keep, channel])) {
    try {
      closeSync(fd)
    } catch {
      // gone already
    }
  }
}

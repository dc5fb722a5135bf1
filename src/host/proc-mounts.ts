/**
 * Parses mountinfo, and has the two reads that the checks of a union need. Used before a mount and
 * for diagnostics, never while a request is served.
 */

import { readFileSync } from 'node:fs'

/** One line of /proc/PID/mountinfo, proc_pid_mountinfo(5). */
export interface MountInfo {
  id: number
  /** `major:minor` of the filesystem. */
  device: string
  /** The directory of the filesystem that is mounted. */
  root: string
  mountpoint: string
  /** Per-mount options, such as `rw,nosuid`. */
  options: string
  /** `ext4`, `fuse.tsoverlay`, … */
  type: string
  source: string
  superOptions: string
}

/** Replaces octal escapes (`\040`) of /proc files by their bytes. */
export const unescapeOctal = (text: string): string => {
  if (!text.includes('\\')) return text
  const bytes = Buffer.from(text, 'utf8').toString('latin1')
  const plain = bytes.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  )
  return Buffer.from(plain, 'latin1').toString('utf8')
}

/** @param holding only lines with this text are parsed */
export const parseMountInfo = (text: string, holding = ''): MountInfo[] => {
  const mounts: MountInfo[] = []
  if (!text.includes(holding)) return mounts
  for (const line of text.split('\n')) {
    if (!line.includes(holding)) continue
    const [first, second] = line.split(' - ', 2)
    if (first === undefined || second === undefined) continue
    const [id, , device, root, mountpoint, options] = first.split(' ')
    const [type, source, superOptions] = second.split(' ')
    if (id === undefined || device === undefined || root === undefined) continue
    if (mountpoint === undefined || type === undefined) continue
    mounts.push({
      id: Number(id),
      device,
      root: unescapeOctal(root),
      mountpoint: unescapeOctal(mountpoint),
      options: options ?? '',
      type,
      source: unescapeOctal(source ?? ''),
      superOptions: superOptions ?? '',
    })
  }
  return mounts
}

/**
 * The mounts of a process's mount namespace; empty if /proc cannot be read.
 * @param holding only mounts whose line contains this text
 */
export const readMountInfo = (pid: number | 'self' = 'self', holding?: string): MountInfo[] => {
  try {
    return parseMountInfo(readFileSync(`/proc/${pid}/mountinfo`, 'utf8'), holding)
  } catch {
    return []
  }
}

/** The mount of an open file. */
export const mountOf = (fd: number): MountInfo | undefined => {
  try {
    const id = /^mnt_id:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1]
    return readMountInfo().find(mount => mount.id === Number(id))
  } catch {
    return undefined // no /proc
  }
}

/** The device of the topmost mount on a path. */
export const deviceOn = (path: string): string | undefined =>
  readMountInfo().findLast(({ mountpoint }) => mountpoint === path)?.device

/** Whether a mount is still on a path, but below another mount. */
export const isCovered = (path: string, device: string): boolean => {
  const devices = readMountInfo()
    .filter(({ mountpoint }) => mountpoint === path)
    .map(mount => mount.device)
  return devices.includes(device) && devices.at(-1) !== device
}

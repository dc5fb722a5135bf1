/**
 * Checks the directories of a union before anything is created or mounted. Every fault is a
 * MountError that names the option, the path and the remedy. The codes are the errnos of kernel
 * overlayfs (fs/overlayfs/super.c: ovl_get_upper, ovl_get_workdir, ovl_check_layer,
 * ovl_check_overlapping_layers).
 */

import * as fs from 'node:fs'
import { join } from 'node:path'

import { MountError } from '../errors.js'
import { O_CLOEXEC, O_DIRECTORY, O_PATH } from '../sys/constants.js'
import { checkOthers, type Wanted } from './in-use.js'
import { checkAbove } from './lock-holder.js'
import { readMountInfo, type MountInfo } from './proc-mounts.js'
import type { UnionOptions } from '../overlay/options.js'

/** A directory that an option names, and its location. */
interface Place {
  option: string
  /** As given in the option. */
  path: string
  /** Without symlinks. */
  real: string
  /** Device and inode number, which identify the directory under any name. */
  key: string
  device: bigint
  mountId: number
  /**
   * Its location within its own filesystem: the filesystem's device and the path from its root. It
   * sees through bind mounts, as the kernel's comparison of dentries does.
   */
  inside: string | undefined
}

/**
 * Checks the layers of a union.
 * @param impatient do not wait for another mount that is about to end
 * @param mounts of this process
 * @throws {MountError} for the first fault
 */
export const validateUnion = (
  options: UnionOptions,
  impatient = false,
  mounts: readonly MountInfo[] = readMountInfo(),
): void => {
  if (options.lower.length === 0) {
    throw new MountError(
      'lowerdir is missing: a union needs at least one lower layer; add lowerdir=DIRECTORY',
      { option: 'lowerdir', code: 'EINVAL' },
    )
  }
  const lower = options.lower.map(path => locate('lowerdir', path, mounts))
  for (const place of lower) checkAccess(place, fs.constants.R_OK | fs.constants.X_OK)

  if (options.upper === undefined) {
    checkSeparate(lower, undefined)
    return
  }
  const upper = locate('upperdir', options.upper, mounts)
  checkAccess(upper, fs.constants.R_OK | fs.constants.W_OK | fs.constants.X_OK)
  if (options.work === undefined) {
    throw new MountError(
      `workdir is missing: upperdir=${options.upper} needs one; add workdir=DIRECTORY, an empty directory on the same file system`,
      { option: 'workdir', code: 'EINVAL' },
    )
  }
  const workdir = locate('workdir', options.work, mounts)
  checkAccess(workdir, fs.constants.R_OK | fs.constants.W_OK | fs.constants.X_OK)

  checkUpperAndWork(upper, workdir)
  checkSeparate([upper, ...lower], workdir)
  const above = [upper, workdir].flatMap(place => wantedAbove(place, mounts))
  checkAbove(above, impatient)
  checkOthers(
    [...[upper, workdir].map(place => ({ ...place, directory: place.path })), ...above],
    mounts,
    impatient,
  )
  checkIncompat(options.work)
}

/**
 * Checks the mountpoint. It may itself be a layer, because layers are opened before the mount hides
 * them, and layers may be below it. It must not be below a layer: the server would then access its
 * own mount and wait for itself.
 * @throws {MountError} for the first fault
 */
export const validateMountpoint = (
  mountpoint: string,
  options: UnionOptions,
  mounts: readonly MountInfo[] = readMountInfo(),
): void => {
  const place = locate('mountpoint', mountpoint, mounts)
  const above = new Set(ancestors(place.real).map(statKey))

  const layers: [option: string, path: string][] = options.lower.map(path => ['lowerdir', path])
  if (options.upper !== undefined) layers.push(['upperdir', options.upper])
  if (options.work !== undefined) layers.push(['workdir', options.work])
  for (const [option, path] of layers) {
    const layer = locate(option, path, mounts)
    if (layer.key === place.key) continue
    if (!above.has(layer.key) && !isBelow(place, layer)) continue
    throw new MountError(
      `mountpoint=${mountpoint} lies inside ${option}=${path}: the union would contain itself; mount it on a directory outside of its layers`,
      { option: 'mountpoint', path: mountpoint, code: 'ELOOP' },
    )
  }
}

const locate = (option: string, path: string, mounts: readonly MountInfo[]): Place => {
  let stat: fs.BigIntStats
  let real: string
  let mountId = -1
  try {
    stat = fs.statSync(path, { bigint: true })
    if (!stat.isDirectory()) {
      throw new MountError(`${option}=${path}: not a directory; name a directory`, {
        option,
        path,
        code: 'ENOTDIR',
      })
    }
    real = fs.realpathSync.native(path)
    const fd = fs.openSync(path, O_PATH | O_DIRECTORY | O_CLOEXEC)
    try {
      mountId = mountIdOf(fd)
    } finally {
      fs.closeSync(fd)
    }
  } catch (error) {
    throw error instanceof MountError ? error : pathError(option, path, error)
  }
  const mount = mounts.find(one => one.id === mountId)
  return {
    option,
    path,
    real,
    key: `${stat.dev}:${stat.ino}`,
    device: stat.dev,
    mountId,
    inside: mount === undefined ? undefined : insideOf(mount, real),
  }
}

const mountIdOf = (fd: number): number => {
  let info: string
  try {
    info = fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1')
  } catch (error) {
    if (errnoCode(error) !== 'ENOENT') throw error
    throw new MountError('/proc is not mounted; mount it with: mount -t proc proc /proc', {
      code: 'ENOENT',
      path: '/proc',
    })
  }
  const line = /^mnt_id:\s*(\d+)/m.exec(info)
  return line === null ? -1 : Number(line[1])
}

const insideOf = (mount: MountInfo, real: string): string | undefined => {
  const top = mount.mountpoint === '/' ? '' : mount.mountpoint
  if (real !== mount.mountpoint && !real.startsWith(`${top}/`)) return undefined
  const root = mount.root === '/' ? '' : mount.root
  return `${mount.device}${root}${real.slice(top.length)}`.replace(/\/+$/, '')
}

const isBelow = (place: Place, other: Place): boolean =>
  place.inside !== undefined &&
  other.inside !== undefined &&
  place.inside.startsWith(`${other.inside}/`)

/** The directories above a path without symlinks, nearest first. */
const ancestors = (real: string): string[] => {
  const above: string[] = []
  for (let path = real; path !== '/';) {
    path = path.slice(0, path.lastIndexOf('/')) || '/'
    above.push(path)
  }
  return above
}

const statKey = (path: string): string => {
  const stat = fs.statSync(path, { bigint: true, throwIfNoEntry: false })
  return stat === undefined ? '' : `${stat.dev}:${stat.ino}`
}

const errnoCode = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string'
    ? error.code
    : undefined

const pathError = (option: string, path: string, cause: unknown): MountError => {
  const code = errnoCode(cause)
  const [what, wayOut] = explain(option, path, code, cause)
  return new MountError(`${option}=${path}: ${what}; ${wayOut}`, {
    option,
    path,
    cause,
    ...(code === undefined ? {} : { code }),
  })
}

const explain = (
  option: string,
  path: string,
  code: string | undefined,
  cause: unknown,
): [what: string, wayOut: string] => {
  switch (code ?? '') {
    case 'ENOENT':
      return ['no such directory', 'create it, or correct the path']
    case 'ENOTDIR':
      return ['a part of this path is not a directory', 'correct the path']
    case 'EACCES':
    case 'EPERM':
      return [
        'permission denied',
        option === 'upperdir' || option === 'workdir'
          ? 'it must be readable and writable for the mounting user; change its mode or owner'
          : 'it must be readable for the mounting user; change its mode or owner',
      ]
    case 'EROFS':
      return [
        'lies on a read-only file system',
        'choose a directory on a writable one, or leave out upperdir and workdir for a read-only union',
      ]
    case 'ELOOP':
      return ['too many symlinks in this path', 'correct the path']
    case 'ENOTCONN':
      return ['a mount whose server is gone covers it', `clear it first with: umount -l ${path}`]
    case 'ENAMETOOLONG':
      return ['the path is too long', 'use a shorter one']
    case 'EMFILE':
    case 'ENFILE':
      return ['too many open files', 'raise the limit (ulimit -n)']
    default:
      return [cause instanceof Error ? cause.message : String(cause), 'correct the path']
  }
}

const checkAccess = (place: Place, mode: number): void => {
  try {
    fs.accessSync(place.path, mode)
  } catch (error) {
    throw pathError(place.option, place.path, error)
  }
}

/** The kernel's "workdir and upperdir must reside under the same mount / be separate subtrees". */
const checkUpperAndWork = (upper: Place, workdir: Place): void => {
  if (upper.device !== workdir.device || upper.mountId !== workdir.mountId) {
    throw new MountError(
      `workdir=${workdir.path} and upperdir=${upper.path} lie on different file systems or mounts; choose a workdir beside upperdir, so that files can be renamed from one into the other`,
      { option: 'workdir', path: workdir.path, code: 'EXDEV' },
    )
  }
  const [place, how] =
    upper.key === workdir.key
      ? [workdir, `is the same directory as upperdir=${upper.path}`]
      : contains(upper, workdir)
        ? [workdir, `lies inside upperdir=${upper.path}`]
        : contains(workdir, upper)
          ? [upper, `lies inside workdir=${workdir.path}`]
          : []
  if (place === undefined) return
  throw new MountError(
    `${place.option}=${place.path} ${how}; the two must be separate directories, side by side`,
    { option: place.option, path: place.path, code: 'EINVAL' },
  )
}

const contains = (outer: Place, inner: Place): boolean =>
  isBelow(inner, outer) || ancestors(inner.real).some(path => statKey(path) === outer.key)

/**
 * Checks that no layer is given twice, is inside another, or is inside the workdir's own
 * subdirectories. Each directory's ancestors are visited once, so the cost is linear in the number
 * of layers.
 */
const checkSeparate = (layers: Place[], workdir: Place | undefined): void => {
  const byKey = new Map<string, Place>()
  const byInside = new Map<string, Place>()
  for (const layer of layers) {
    const twin = byKey.get(layer.key) ?? lookUp(byInside, layer.inside)
    if (twin !== undefined) {
      throw overlap(
        layer,
        `is the same directory as ${twin.option}=${twin.path}; name each layer once`,
      )
    }
    byKey.set(layer.key, layer)
    if (layer.inside !== undefined) byInside.set(layer.inside, layer)
  }
  // The workdir itself must not be inside a layer. Below it, only `work` and `index` belong to the
  // union.
  const occupied = new Map(byKey)
  const insideOccupied = new Map(byInside)
  if (workdir !== undefined) {
    const twin = byKey.get(workdir.key)
    if (twin !== undefined) {
      throw overlap(
        workdir,
        `is the same directory as ${twin.option}=${twin.path}; choose another workdir`,
      )
    }
    for (const name of ['work', 'index']) {
      const path = `${workdir.real === '/' ? '' : workdir.real}/${name}`
      const key = statKey(path)
      const place = { ...workdir, path, real: path, key }
      const layer = byKey.get(key)
      if (layer !== undefined) {
        throw overlap(layer, `is a part of workdir=${workdir.path}; layers must lie outside of it`)
      }
      if (key !== '') occupied.set(key, place)
      if (workdir.inside !== undefined) insideOccupied.set(`${workdir.inside}/${name}`, place)
    }
  }
  const keys = new Map<string, string>()
  const keyOf = (path: string): string => {
    let key = keys.get(path)
    if (key === undefined) keys.set(path, (key = statKey(path)))
    return key
  }
  for (const layer of workdir === undefined ? layers : [...layers, workdir]) {
    const outer =
      ancestors(layer.real)
        .map(path => occupied.get(keyOf(path)))
        .find(place => place !== undefined) ??
      insideAncestors(layer.inside)
        .map(path => insideOccupied.get(path))
        .find(place => place !== undefined)
    if (outer === undefined) continue
    throw overlap(
      layer,
      `lies inside ${outer.option}=${outer.path}; layers must be separate directories, so move one of them out`,
    )
  }
}

/**
 * The directories above a directory within its filesystem, regardless of mountpoints (kernel:
 * ovl_check_layer walks up the dentries). Those above the root of its mount are found only if
 * another mount shows them.
 */
const wantedAbove = (place: Place, mounts: readonly MountInfo[]): Wanted[] => {
  const { option, path } = place
  const found = insideAncestors(place.inside).map(inside => {
    for (const mount of mounts) {
      const top = `${mount.device}${mount.root === '/' ? '' : mount.root}`
      if (inside !== top && !inside.startsWith(`${top}/`)) continue
      const directory = join(mount.mountpoint, inside.slice(top.length))
      const key = keyOn(directory, mount.id)
      if (key !== '') return { option, path, directory, key }
    }
    return undefined
  })
  return found.filter(wanted => wanted !== undefined)
}

/** Like `statKey`, but also empty if another mount covers the path. */
const keyOn = (path: string, mountId: number): string => {
  let fd = -1
  try {
    fd = fs.openSync(path, O_PATH | O_DIRECTORY | O_CLOEXEC)
    const stat = fs.fstatSync(fd, { bigint: true })
    return mountIdOf(fd) === mountId ? `${stat.dev}:${stat.ino}` : ''
  } catch {
    return '' // it cannot be opened
  } finally {
    if (fd >= 0) fs.closeSync(fd)
  }
}

const lookUp = (map: Map<string, Place>, key: string | undefined): Place | undefined =>
  key === undefined ? undefined : map.get(key)

const insideAncestors = (inside: string | undefined): string[] => {
  const above: string[] = []
  for (let path = inside ?? ''; path.includes('/');) {
    path = path.slice(0, path.lastIndexOf('/'))
    above.push(path)
  }
  return above
}

const overlap = (layer: Place, sentence: string): MountError =>
  new MountError(`${layer.option}=${layer.path} ${sentence}`, {
    option: layer.option,
    path: layer.path,
    code: 'ELOOP',
  })

/** Like ovl_workdir_cleanup_recurse(): any entry in `incompat` forbids the mount. */
const checkIncompat = (workdir: string): void => {
  const directory = join(workdir, 'work', 'incompat')
  let features: string[]
  try {
    features = fs.readdirSync(directory)
  } catch (error) {
    if (errnoCode(error) === 'ENOENT' || errnoCode(error) === 'ENOTDIR') return
    throw pathError('workdir', directory, error)
  }
  const [feature] = features
  if (feature === undefined) return
  const wayOut =
    feature === 'volatile'
      ? `its last mount never synced, so after a crash of the machine throw away upperdir and workdir, else remove ${directory}/volatile`
      : `mount it with a program that knows this feature, or take a new workdir and check the upper layer`
  throw new MountError(
    `workdir=${workdir}: overlay with incompat feature '${feature}' cannot be mounted; ${wayOut}`,
    { option: 'workdir', path: `${directory}/${feature}`, code: 'EINVAL' },
  )
}

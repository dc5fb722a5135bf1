/** Makes one call on one of the two mounts and collects its visible results. */

import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { dirname } from 'node:path/posix'
import * as sys from '../helpers/syscalls.js'
import type { Stat } from '../helpers/syscalls.js'
import type { Action, Call, Place } from './calls.js'
import { SLOTS, USERS, placesOf } from './calls.js'
import { pattern } from './stack.js'
import { inUserNamespace } from './userns.js'

/** One of the two mounts, with the descriptors that the run keeps on it. */
export interface Side {
  mountpoint: string
  root: number
  slots: number[]
  /** The inode number of the slot's file when it was opened. */
  slotInos: bigint[]
  /** The candidate's FUSE client ignores the time of a truncation to the same size. */
  writeBack: boolean
  /** Overlayfs copies only metadata up, and the data when a file is opened for writing. */
  metacopy: boolean
  /** Its upper layer. */
  upper: string | null
  /** Inode numbers of files that had several names before one was removed. */
  linked: Set<bigint>
}

export const openSide = (
  mountpoint: string,
  { upper, writeBack, metacopy }: Pick<Side, 'upper' | 'writeBack' | 'metacopy'>,
): Side => {
  const root = sys.open(mountpoint, sys.O.RDONLY | sys.O.DIRECTORY)
  if (root < 0) throw new Error(`open ${mountpoint}: errno ${-root}`)
  return {
    mountpoint,
    root,
    slots: Array.from({ length: SLOTS }, () => -1),
    slotInos: Array.from({ length: SLOTS }, () => 0n),
    writeBack,
    metacopy,
    upper,
    linked: new Set(),
  }
}

export const closeSide = (side: Side): void => {
  for (const fd of side.slots) if (fd >= 0) sys.close(fd)
  side.slots.fill(-1)
  sys.close(side.root)
}

export interface Outcome {
  /** 0 or more, or -errno. */
  ret: number | bigint
  /** Further results by name; compared as text. */
  fields: Record<string, string>
  stats: Record<string, Stat>
}

const onlyResult = (ret: number | bigint): Outcome => ({ ret, fields: {}, stats: {} })

const hash = (bytes: Uint8Array): string =>
  bytes.length <= 24
    ? Buffer.from(bytes).toString('hex')
    : `${bytes.length} bytes ${createHash('sha1').update(bytes).digest('hex')}`

const fdOf = (side: Side, slot: number): number => side.slots[slot] ?? -1
const baseOf = (side: Side, place: Place): number => {
  // An absolute path would lead out of the mount into the test system.
  if (place.path.startsWith('/')) throw new Error(`an absolute path: ${place.path}`)
  return place.slot < 0 ? side.root : fdOf(side, place.slot)
}
/** A path for the calls without a variant that takes a directory descriptor. */
const procPath = (side: Side, place: Place): string =>
  place.path === '' ? '' : `/proc/self/fd/${baseOf(side, place)}/${place.path}`

const statOutcome = (stat: Stat | number): Outcome =>
  typeof stat === 'number' ? onlyResult(stat) : { ret: 0, fields: {}, stats: { stat } }

const withStat = (outcome: Outcome, name: string, stat: Stat | number): Outcome => {
  if (typeof stat === 'number') outcome.fields[name] = `errno ${-stat}`
  else outcome.stats[name] = stat
  return outcome
}

/** A listing, sorted, with the lstat result for each name. */
const describeListing = (fd: number, entries: sys.Dirent[]): Outcome => {
  const shown: string[] = []
  const ghosts: string[] = []
  const wrong: string[] = []
  for (const entry of entries) {
    const stat = entry.name === '..' ? null : sys.lstat(fd, entry.name)
    if (stat === -2) {
      ghosts.push(entry.name)
      continue
    }
    shown.push(
      `${entry.name} type ${entry.type}${typeof stat === 'number' ? ` errno ${-stat}` : ''}`,
    )
    if (stat !== null && typeof stat !== 'number' && stat.ino !== entry.ino) wrong.push(entry.name)
  }
  return {
    ret: 0,
    fields: {
      entries: shown.toSorted().join('\n'),
      ghosts: ghosts.toSorted().join('\n'),
      'd_ino wrong': wrong.toSorted().join('\n'),
    },
    stats: {},
  }
}

const list = (side: Side, place: Place, room: number, as: number): Outcome => {
  const opened = asUser(as, () =>
    sys.openat(baseOf(side, place), place.path, sys.O.RDONLY | sys.O.DIRECTORY),
  )
  if (opened < 0) return onlyResult(opened)
  const entries = sys.allDirents(opened, room)
  const outcome =
    typeof entries === 'number' ? onlyResult(entries) : describeListing(opened, entries)
  sys.close(opened)
  return outcome
}

const asUser = <T>(as: number, use: () => T): T => {
  const user = USERS[as]
  return user === undefined || as === 0 ? use() : sys.withCredentials(user, use)
}

/**
 * Names that were not created or removed in the meantime are listed once; names that never existed
 * are not listed.
 */
const listDuring = (side: Side, place: Place, room: number, changes: Call[]): Outcome => {
  const flags = sys.O.RDONLY | sys.O.DIRECTORY
  const names = (): string[] | number => {
    const fd = sys.openat(baseOf(side, place), place.path, flags)
    if (fd < 0) return fd
    const entries = sys.allDirents(fd)
    // A name that is listed but can't be looked up does not count.
    const found =
      typeof entries === 'number'
        ? entries
        : entries.filter(e => e.name === '..' || sys.lstat(fd, e.name) !== -2).map(e => e.name)
    sys.close(fd)
    return found
  }
  const before = names()
  if (typeof before === 'number') return onlyResult(before)
  const fd = sys.openat(baseOf(side, place), place.path, flags)
  if (fd < 0) return onlyResult(fd)
  const first = sys.getdents(fd, room)
  // Renames that overlayfs may refuse: see `leftOut`.
  const isDone = (call: Call): boolean => !(side.metacopy && RENAMES.has(call.action.op))
  const results = changes.filter(isDone).map(call => perform(side, call).ret)
  const rest = sys.allDirents(fd, room)
  sys.close(fd)
  const after = names()
  const outcome: Outcome = { ret: 0, fields: { changes: results.join(' ') }, stats: {} }
  if (typeof first === 'number' || typeof rest === 'number' || typeof after === 'number') {
    outcome.fields['violations'] = `${typeof first} ${typeof rest} ${typeof after}`
    return outcome
  }
  const touched = new Set<string>()
  for (const call of changes)
    for (const p of placesOf(call.action)) touched.add(p.path.split('/').at(-1) ?? '')
  const counts = new Map<string, number>()
  for (const entry of [...first, ...rest]) counts.set(entry.name, (counts.get(entry.name) ?? 0) + 1)
  const violations: string[] = []
  for (const name of before) {
    const count = counts.get(name) ?? 0
    if (!touched.has(name) && after.includes(name) && count !== 1)
      violations.push(`${name} listed ${count} times`)
  }
  outcome.fields['violations'] = violations.toSorted().join('\n')
  return outcome
}

const seekdir = (side: Side, place: Place, index: number): Outcome => {
  const fd = sys.openat(baseOf(side, place), place.path, sys.O.RDONLY | sys.O.DIRECTORY)
  if (fd < 0) return onlyResult(fd)
  const all = sys.allDirents(fd, 300)
  if (typeof all === 'number' || all.length === 0) {
    sys.close(fd)
    return onlyResult(typeof all === 'number' ? all : 0)
  }
  const from = index % all.length
  const cookie = all[from]?.cookie ?? 0n
  const sought = sys.lseek(fd, cookie, sys.SEEK.SET)
  const tail = sys.allDirents(fd, 300)
  sys.close(fd)
  const same =
    typeof tail !== 'number' &&
    tail.map(e => e.name).join('\n') ===
      all
        .slice(from + 1)
        .map(e => e.name)
        .join('\n')
  return {
    ret: 0,
    fields: {
      sought: String(sought >= 0),
      violations: same ? '' : 'the rest after seekdir differs',
    },
    stats: {},
  }
}

const mapped = (side: Side, a: Action & { op: 'mmap' }): Outcome => {
  const fd = fdOf(side, a.slot)
  const stat = sys.fstat(fd)
  const FS_APPEND_FL = 0x20
  const flags = sys.getFlags(fd)
  if (a.shared && flags > 0 && flags & FS_APPEND_FL) return onlyResult(0)
  const fileSize = typeof stat === 'number' ? 0 : stat.size
  // An access after the end of the file would cause SIGBUS.
  const usable = Math.max(0, Math.min(a.length, fileSize - a.at))
  const read = sys.alignedBuffer(usable)
  const bytes = usable === 0 ? 0 : sys.pread(fd, read, a.at)
  const seen = sys.withMapping(
    fd,
    Math.max(a.length, 1),
    a.prot,
    a.shared ? sys.MAP.SHARED : sys.MAP.PRIVATE,
    a.at,
    view => {
      const window = view.subarray(0, usable)
      const before = a.prot & sys.PROT.READ ? hash(window) : ''
      if (a.prot & sys.PROT.WRITE) window.set(pattern(usable, a.fill))
      return before
    },
    usable,
  )
  if (typeof seen === 'number') return onlyResult(seen)
  // read(2) and the mapping of one descriptor differ; `leftOut` handles this as it does SIGBUS.
  if (seen !== '' && bytes === usable && hash(read.subarray(0, usable)) !== seen)
    return onlyResult(EFAULT)
  return { ret: 0, fields: { data: seen }, stats: {} }
}

const setFlagsOf = (fd: number, flags: number): number => {
  const old = sys.getFlags(fd)
  // As chattr(1) does: other flags of the file system are passed back unchanged.
  return old < 0 ? old : sys.setFlags(fd, (old & ~0x30 & ~0xc0) | flags)
}

const openFor = (side: Side, place: Place, use: (fd: number) => number): number => {
  const fd = sys.openat(baseOf(side, place), place.path, sys.O.RDONLY | sys.O.NONBLOCK)
  if (fd < 0) return fd
  const result = use(fd)
  sys.close(fd)
  return result
}

const readInto = (fd: number, length: number, at: number | null): Outcome => {
  const buf = at === null ? Buffer.alloc(length) : sys.alignedBuffer(length)
  const ret = at === null ? sys.read(fd, buf) : sys.pread(fd, buf, at)
  return ret < 0
    ? onlyResult(ret)
    : { ret, fields: { data: hash(buf.subarray(0, ret)) }, stats: {} }
}

const fromValue = (value: string[] | Buffer | number): Outcome =>
  typeof value === 'number'
    ? onlyResult(value)
    : {
        ret: 0,
        fields: { value: Array.isArray(value) ? value.join('\n') : value.toString('hex') },
        stats: {},
      }

/** Whether a file reads as zeros from one offset to another. */
const isZero = (fd: number, from: number, to: number): boolean => {
  // The descriptor itself may be write-only.
  const own = sys.open(`/proc/self/fd/${fd}`, sys.O.RDONLY)
  if (own < 0) return true
  const buf = Buffer.alloc(Math.min(to - from, 1 << 20))
  let zero = true
  for (let at = from; at < to && zero; at += buf.length) {
    const got = sys.pread(own, buf.subarray(0, Math.min(buf.length, to - at)), at)
    zero = got > 0 && buf.subarray(0, got).every(byte => byte === 0)
  }
  sys.close(own)
  return zero
}

const ENXIO = -6
/** SEEK_DATA and SEEK_HOLE, and whether a reported hole contains only zeros. */
const seekHole = (fd: number, offset: number, whence: number): Outcome => {
  const ret = sys.lseek(fd, offset, whence)
  const stat = sys.fstat(fd)
  if (typeof stat === 'number' || (ret < 0 && ret !== ENXIO)) return onlyResult(ret)
  const end = Number(whence === sys.SEEK.DATA ? (ret < 0 ? stat.size : ret) : offset)
  let from = offset
  let to = end
  if (whence === sys.SEEK.HOLE) {
    from = ret < 0 ? offset : Number(ret)
    const data = sys.lseek(fd, from, sys.SEEK.DATA)
    to = data < 0 ? stat.size : Number(data)
  }
  const honest = offset < 0 || from >= to || isZero(fd, from, to)
  // The results may differ, so the file position is reset to the same offset.
  sys.lseek(fd, Math.max(0, offset), sys.SEEK.SET)
  return {
    ret,
    fields: { holes: honest ? 'are holes' : `there is data from ${from} to ${to}` },
    stats: {},
  }
}

/** A truncation that is not compared, see NOT_COMPARED. */
const sameSize = (side: Side, stat: Stat | number, size: number): boolean =>
  side.writeBack && typeof stat === 'object' && stat.size === size

const openInto = (side: Side, a: Action & { op: 'open' }): Outcome => {
  const old = fdOf(side, a.into)
  // Closed after the new one is open, because the path may be relative to it.
  const fd = sys.openat(baseOf(side, a.place), a.place.path, a.flags | sys.O.NONBLOCK, a.mode)
  if (fd < 0) return onlyResult(fd)
  if (old >= 0) sys.close(old)
  side.slots[a.into] = fd
  return onlyResult(0)
}

const act = (side: Side, call: Call): Outcome => {
  const a = call.action
  const at = 'place' in a ? baseOf(side, a.place) : -1
  const fd = 'slot' in a ? fdOf(side, a.slot) : -1
  switch (a.op) {
    case 'open':
      return openInto(side, a)
    case 'mkdir':
      return onlyResult(sys.mkdirat(at, a.place.path, a.mode))
    case 'mknod':
      return onlyResult(sys.mknodat(at, a.place.path, a.mode, a.major, a.minor))
    case 'symlink':
      return onlyResult(sys.symlinkat(a.target, at, a.place.path))
    case 'link':
      return onlyResult(
        sys.linkat(
          at,
          a.place.path,
          baseOf(side, a.to),
          a.to.path,
          a.follow ? sys.AT_SYMLINK_FOLLOW : 0,
        ),
      )
    case 'linkFd':
      return onlyResult(
        a.empty
          ? sys.linkat(fd, '', baseOf(side, a.to), a.to.path, sys.AT_EMPTY_PATH)
          : sys.linkat(
              sys.AT_FDCWD,
              `/proc/self/fd/${fd}`,
              baseOf(side, a.to),
              a.to.path,
              sys.AT_SYMLINK_FOLLOW,
            ),
      )
    case 'unlink':
      return onlyResult(sys.unlinkat(at, a.place.path, 0))
    case 'rmdir':
      return onlyResult(sys.unlinkat(at, a.place.path, sys.AT_REMOVEDIR))
    case 'rename':
      return onlyResult(sys.renameat2(at, a.place.path, baseOf(side, a.to), a.to.path, a.flags))
    case 'chmod':
      return onlyResult(sys.fchmodat(at, a.place.path, a.mode))
    case 'chown':
      return onlyResult(
        sys.fchownat(at, a.place.path, a.uid, a.gid, a.follow ? 0 : sys.AT_SYMLINK_NOFOLLOW),
      )
    case 'utimens':
      return onlyResult(
        sys.utimensat(at, a.place.path, a.atime, a.mtime, a.follow ? 0 : sys.AT_SYMLINK_NOFOLLOW),
      )
    case 'truncate':
      if (sameSize(side, sys.statx(at, a.place.path, 0), a.size)) return onlyResult(0)
      return onlyResult(sys.truncate(procPath(side, a.place), a.size))
    case 'setxattr':
      return onlyResult(
        sys.setxattr(
          { path: procPath(side, a.place), follow: a.follow },
          a.name,
          Buffer.from(a.value, 'hex'),
          a.flags,
        ),
      )
    case 'getxattr':
      return fromValue(
        sys.getxattr({ path: procPath(side, a.place), follow: a.follow }, a.name, a.room),
      )
    case 'listxattr':
      return fromValue(sys.listxattr({ path: procPath(side, a.place), follow: a.follow }, a.room))
    case 'removexattr':
      return onlyResult(
        sys.removexattr({ path: procPath(side, a.place), follow: a.follow }, a.name),
      )
    case 'stat':
      return statOutcome(sys.statx(at, a.place.path, a.follow ? 0 : sys.AT_SYMLINK_NOFOLLOW))
    case 'readlink': {
      const target = sys.readlinkat(at, a.place.path, a.room)
      return typeof target === 'number'
        ? onlyResult(target)
        : { ret: 0, fields: { target }, stats: {} }
    }
    case 'list':
    case 'listDuring':
    case 'seekdir':
    case 'flist':
      throw new Error('a listing changes ids on its own')
    case 'access':
      return onlyResult(sys.faccessat(at, a.place.path, a.mode, a.effective ? sys.AT_EACCESS : 0))
    case 'statfs': {
      const stat = sys.statfs(procPath(side, a.place))
      return typeof stat === 'number'
        ? onlyResult(stat)
        : {
            ret: 0,
            fields: {
              namelen: String(stat.namelen),
              bsize: String(stat.bsize),
              blocks: String(stat.blocks),
            },
            stats: {},
          }
    }
    case 'getflags':
      return onlyResult(openFor(side, a.place, sys.getFlags))
    case 'setflags':
      return onlyResult(openFor(side, a.place, f => setFlagsOf(f, a.flags)))
    case 'close':
      side.slots[a.slot] = -1
      return onlyResult(sys.close(fd))
    case 'read':
      return readInto(fd, a.length, null)
    case 'pread':
      return readInto(fd, a.length, a.at)
    case 'write':
      return onlyResult(sys.write(fd, pattern(a.length, a.fill)))
    case 'pwrite': {
      const buf = sys.alignedBuffer(a.length)
      buf.set(pattern(a.length, a.fill))
      return onlyResult(sys.pwrite(fd, buf, a.at))
    }
    case 'lseek':
      return a.whence === sys.SEEK.DATA || a.whence === sys.SEEK.HOLE
        ? seekHole(fd, a.offset, a.whence)
        : onlyResult(sys.lseek(fd, a.offset, a.whence))
    case 'ftruncate':
      if (sameSize(side, sys.fstat(fd), a.size)) return onlyResult(0)
      return onlyResult(sys.ftruncate(fd, a.size))
    case 'fallocate':
      return onlyResult(sys.fallocate(fd, a.mode, a.at, a.length))
    case 'copy':
      return onlyResult(sys.copyFileRange(fd, a.at, fdOf(side, a.toSlot), a.toAt, a.length))
    case 'fsync':
      return onlyResult(a.data ? sys.fdatasync(fd) : sys.fsync(fd))
    case 'syncfs':
      return onlyResult(sys.syncfs(fd))
    case 'fstat':
      return statOutcome(sys.fstat(fd))
    case 'fchmod':
      return onlyResult(sys.fchmod(fd, a.mode))
    case 'fchown':
      return onlyResult(sys.fchownat(fd, '', a.uid, a.gid, sys.AT_EMPTY_PATH))
    case 'futimens':
      return onlyResult(sys.futimens(fd, a.atime, a.mtime))
    case 'fsetxattr':
      return onlyResult(sys.setxattr(fd, a.name, Buffer.from(a.value, 'hex'), a.flags))
    case 'fgetxattr':
      return fromValue(sys.getxattr(fd, a.name, a.room))
    case 'flistxattr':
      return fromValue(sys.listxattr(fd, a.room))
    case 'fremovexattr':
      return onlyResult(sys.removexattr(fd, a.name))
    case 'fgetflags':
      return onlyResult(sys.getFlags(fd))
    case 'fsetflags':
      return onlyResult(setFlagsOf(fd, a.flags))
    case 'flock':
      return onlyResult(sys.flock(fd, a.operation))
    case 'mmap':
      return mapped(side, a)
    case 'forget':
    case 'compare':
    case 'remount':
    case 'push':
      return onlyResult(0)
    default:
      return a satisfies never
  }
}

const flist = (side: Side, slot: number, room: number): Outcome => {
  const fd = fdOf(side, slot)
  const sought = sys.lseek(fd, 0, sys.SEEK.SET)
  if (sought < 0) return onlyResult(sought)
  const entries = sys.allDirents(fd, room)
  return typeof entries === 'number' ? onlyResult(entries) : describeListing(fd, entries)
}

/** Root of a user namespace may not be allowed to do this. */
const dropCaches = (): void => {
  try {
    writeFileSync('/proc/sys/vm/drop_caches', '2')
  } catch (error) {
    if (!inUserNamespace) throw error
  }
}

/** Makes the call, with the present ids, without comparing attributes. */
const makeCall = (side: Side, call: Call): Outcome => {
  const a = call.action
  if (a.op === 'list') return list(side, a.place, a.room, call.as)
  if (a.op === 'listDuring') return listDuring(side, a.place, a.room, a.changes)
  if (a.op === 'seekdir') return seekdir(side, a.place, a.index)
  if (a.op === 'flist') return flist(side, a.slot, a.room)
  if (a.op === 'forget') {
    dropCaches()
    return onlyResult(0)
  }
  sys.umask(call.umask)
  try {
    return asUser(call.as, () => act(side, call))
  } finally {
    sys.umask(0o22)
  }
}

const ENOTEMPTY = -39
const OMIT = { sec: 0, nsec: 1_073_741_822 }
const EPERM = -1
const EFAULT = -14
const EINVAL = -22
const EEXIST = -17
const EXDEV = -18
const EOPNOTSUPP = -95
const RENAMES = new Set(['rename', 'link', 'linkFd'])
const LINKS = new Set(['link', 'linkFd'])
const XATTR_CREATE = 1
const CAPABILITY = 'security.capability'
const PROTECTED = 0x30

const isThere = (side: Side, action: Action & { op: 'fsetxattr' }): boolean =>
  typeof sys.getxattr(fdOf(side, action.slot), action.name) !== 'number'

/**
 * The file's capability can't be removed because of its inode flag, and the file is open in a slot.
 */
const isProtectedAndOpen = (side: Side, action: Action): boolean => {
  const own =
    'slot' in action
      ? `/proc/self/fd/${fdOf(side, action.slot)}`
      : 'place' in action
        ? procPath(side, action.place)
        : ''
  const fd = sys.open(own, sys.O.RDONLY | sys.O.NONBLOCK)
  if (fd < 0) return false
  const flags = sys.getFlags(fd)
  const stat = sys.fstat(fd)
  sys.close(fd)
  return (
    flags > 0 &&
    (flags & PROTECTED) !== 0 &&
    typeof stat === 'object' &&
    side.slotInos.includes(stat.ino)
  )
}
/**
 * Overlayfs may change the times of both directories of a refused rename, so both get fixed times.
 */
export const fixTimes = (side: Side, action: Action, outcome: Outcome): void => {
  // The time may have been changed before the file system refused the call.
  if (action.op === 'fallocate' && outcome.ret === EOPNOTSUPP)
    sys.futimens(fdOf(side, action.slot), OMIT, { sec: 1_400_000_000, nsec: 0 })
  if (action.op !== 'rename' || (outcome.ret !== ENOTEMPTY && outcome.ret !== EXDEV)) return
  const time = { sec: 1_400_000_000, nsec: 0 }
  for (const { slot, path } of [action.place, action.to])
    sys.utimensat(baseOf(side, { slot, path }), dirname(path), time, time, 0)
}

const hasInvalidCapability = (side: Side, place: Place): boolean =>
  sys.getxattr({ path: procPath(side, place), follow: true }, CAPABILITY) === EINVAL

/**
 * A file in a directory whose capability can't be copied. If the file has or had other names, the
 * candidate changes it through those or through the index.
 */
const hasAnotherWay = (side: Side, place: Place): boolean => {
  const stat = sys.lstat(baseOf(side, place), place.path)
  if (typeof stat === 'number' || (stat.mode & sys.S.IFMT) === sys.S.IFDIR) return false
  if (stat.nlink < 2 && !side.linked.has(stat.ino)) return false
  const parts = place.path.split('/')
  return parts.some(
    (_, i) => i > 0 && hasInvalidCapability(side, { ...place, path: parts.slice(0, i).join('/') }),
  )
}

/**
 * Whether overlayfs refused a call for a reason that the candidate does not have. Then the
 * candidate does not get the call.
 */
export const isLeftOut = (side: Side, action: Action, outcome: Outcome): boolean => {
  if (outcome.ret === ENOTEMPTY && (action.op === 'rmdir' || action.op === 'rename')) {
    const found = list(side, action.op === 'rmdir' ? action.place : action.to, 32768, 0)
    return found.ret === 0 && found.fields['entries']?.split('\n').length === 2
  }
  // To remove a directory with whiteouts overlayfs replaces it by one without, and copies all
  // xattrs.
  if (outcome.ret === EINVAL && (action.op === 'rmdir' || action.op === 'rename'))
    return hasInvalidCapability(side, action.op === 'rmdir' ? action.place : action.to)
  if (outcome.ret === EXDEV && side.metacopy && RENAMES.has(action.op)) return true
  if (outcome.ret === EXDEV && inUserNamespace && LINKS.has(action.op)) return true
  if (outcome.ret === EPERM && action.op === 'fallocate') return true
  if (outcome.ret === EFAULT && action.op === 'mmap') return true
  if (outcome.ret === EINVAL && side.metacopy && (action.op === 'open' || action.op === 'truncate'))
    return hasInvalidCapability(side, action.place)
  if (outcome.ret === EINVAL && 'place' in action && hasAnotherWay(side, action.place)) return true
  if (outcome.ret === EPERM && /^f?removexattr$/.test(action.op) && 'name' in action)
    return action.name === CAPABILITY && isProtectedAndOpen(side, action)
  if (outcome.ret === 0 && action.op === 'copy') return true
  // A removed file or directory would be copied up to its former name, which another object has
  // now.
  return (
    (outcome.ret === EEXIST || outcome.ret === ENOTEMPTY) &&
    'slot' in action &&
    action.op !== 'linkFd' &&
    !(
      outcome.ret === EEXIST &&
      action.op === 'fsetxattr' &&
      action.flags & XATTR_CREATE &&
      isThere(side, action)
    )
  )
}

const CHANGES_BY_SLOT = new Set(['fchmod', 'fchown', 'futimens', 'fsetxattr', 'fremovexattr'])

/**
 * An open FIFO or directory without a name: overlayfs may nevertheless copy it up to its former
 * name.
 */
const wouldReappear = (side: Side, action: Action): boolean => {
  if (!('slot' in action) || !CHANGES_BY_SLOT.has(action.op)) return false
  const fd = fdOf(side, action.slot)
  const stat = sys.fstat(fd)
  if (typeof stat === 'number') return false
  const type = stat.mode & sys.S.IFMT
  if (type !== sys.S.IFIFO && type !== sys.S.IFDIR) return false
  const path = sys.readlinkat(sys.AT_FDCWD, `/proc/self/fd/${fd}`)
  return typeof path === 'string' && path.endsWith(' (deleted)')
}

/**
 * A file that was copied up since the mount, or has not been copied up: it shows the inode number
 * of its origin.
 */
const isFromBelow = (side: Side, fd: number): boolean => {
  const path = sys.readlinkat(sys.AT_FDCWD, `/proc/self/fd/${fd}`)
  const stat = sys.fstat(fd)
  if (side.upper === null || typeof path !== 'string' || typeof stat === 'number') return false
  if (stat.nlink === 0 || (stat.mode & sys.S.IFMT) === sys.S.IFDIR) return false
  const real = sys.lstat(sys.AT_FDCWD, side.upper + path.slice(side.mountpoint.length))
  return typeof real === 'number' || real.ino !== stat.ino
}

/** Overlayfs without origins would treat the two names as two files. */
const wouldSeparate = (side: Side, action: Action): boolean => {
  if (!inUserNamespace || (action.op !== 'link' && action.op !== 'linkFd')) return false
  if (action.op === 'linkFd') return isFromBelow(side, fdOf(side, action.slot))
  const flags = sys.O.PATH | (action.follow ? 0 : sys.O.NOFOLLOW)
  const fd = sys.openat(baseOf(side, action.place), action.place.path, flags)
  if (fd < 0) return false
  const result = isFromBelow(side, fd)
  sys.close(fd)
  return result
}

/** Called before a name is removed. */
const noteLinks = (side: Side, places: Place[]): void => {
  for (const place of places) {
    const stat = sys.lstat(baseOf(side, place), place.path)
    if (typeof stat !== 'number' && stat.nlink > 1) side.linked.add(stat.ino)
  }
}

/** @param reference the result of overlayfs, if this is the candidate */
export const perform = (side: Side, call: Call, reference?: Outcome): Outcome => {
  const a = call.action
  // The result is that of any other file; `leftOut` handles it.
  if (wouldReappear(side, a)) return onlyResult(EEXIST)
  if (reference === undefined && wouldSeparate(side, a)) return onlyResult(EXDEV)
  if (a.op === 'unlink' || a.op === 'rename') noteLinks(side, placesOf(a))
  const places = call.check ? placesOf(a) : []
  const look = (place: Place): Stat | number => sys.lstat(baseOf(side, place), place.path)
  const before = places.map(look)
  const outcome = makeCall(side, call)
  fixTimes(side, a, reference ?? outcome)
  if (a.op === 'open' && outcome.ret === 0) {
    // The data may have been copied up by this open, which overlayfs counts as a change.
    if (side.metacopy && (a.flags & (sys.O.WRONLY | sys.O.RDWR)) !== 0)
      sys.futimens(fdOf(side, a.into), OMIT, { sec: 1_400_000_000, nsec: 0 })
    const stat = sys.fstat(fdOf(side, a.into))
    side.slotInos[a.into] = typeof stat === 'number' ? 0n : stat.ino
    withStat(outcome, 'the open file', stat)
  }
  if ('slot' in a && (call.check || a.op === 'fstat')) {
    const stat = sys.fstat(fdOf(side, a.slot))
    if (typeof stat !== 'number')
      outcome.fields['inode number since open'] =
        stat.ino === side.slotInos[a.slot] ? 'the same' : 'another'
    withStat(outcome, 'the open file', stat)
  }
  if (!call.check) return outcome
  const after = places.map(look)
  places.forEach((place, i) => {
    withStat(outcome, `${i === 0 ? 'the first' : 'the second'} path`, after[i] ?? -2)
    const parent = dirname(place.path)
    if (place.path !== '.' && place.path !== '')
      withStat(
        outcome,
        `${i === 0 ? 'the first' : 'the second'} path's directory`,
        look({ slot: place.slot, path: parent }),
      )
    // After several changes a later file may reuse the inode number of a removed one.
    if (a.op === 'listDuring' && i > 0) return
    before.forEach((old, j) => {
      const now = after[i]
      if (typeof old === 'number' || typeof now !== 'object') return
      outcome.fields[`inode number of path ${i + 1}, before at path ${j + 1}`] =
        old.ino === now.ino ? 'the same' : 'another'
    })
  })
  return outcome
}

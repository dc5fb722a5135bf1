/**
 * System calls of the tests, raw and without any policy. It deliberately shares no code with
 * src/sys. A result is the call's result, or -errno. Names are byte strings (latin1, no NUL).
 */

import * as fs from 'node:fs'

// oxlint-disable-next-line no-restricted-imports -- the test's own calls must not share code with what is tested
import koffi from 'koffi'

const libc = koffi.load('libc.so.6')
const bind = (declaration: string): ((...args: unknown[]) => number) =>
  libc.func(declaration) as (...args: unknown[]) => number

/** -errno of a failed call. */
const done = (result: number | bigint): number => {
  const value = Number(result)
  return value < 0 ? -koffi.errno() : value
}

const cString = (bytes: string): Buffer => Buffer.from(`${bytes}\0`, 'latin1')

export const AT_FDCWD = -100
export const AT_SYMLINK_NOFOLLOW = 0x100
export const AT_REMOVEDIR = 0x200
export const AT_SYMLINK_FOLLOW = 0x400
export const AT_EACCESS = 0x200
export const AT_EMPTY_PATH = 0x1000

const arm = process.arch === 'arm64'
export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  CREAT: 0o100,
  EXCL: 0o200,
  NOCTTY: 0o400,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  DSYNC: 0o10000,
  SYNC: 0o4010000,
  DIRECT: arm ? 0o200000 : 0o40000,
  DIRECTORY: arm ? 0o40000 : 0o200000,
  NOFOLLOW: arm ? 0o100000 : 0o400000,
  NOATIME: 0o1000000,
  CLOEXEC: 0o2000000,
  PATH: 0o10000000,
  TMPFILE: 0o20000000 | (arm ? 0o40000 : 0o200000),
} as const

export const S = {
  IFMT: 0o170000,
  IFSOCK: 0o140000,
  IFLNK: 0o120000,
  IFREG: 0o100000,
  IFBLK: 0o060000,
  IFDIR: 0o040000,
  IFCHR: 0o020000,
  IFIFO: 0o010000,
} as const

export const RENAME = { NOREPLACE: 1, EXCHANGE: 2, WHITEOUT: 4 } as const
export const FALLOC = {
  KEEP_SIZE: 1,
  PUNCH_HOLE: 2,
  COLLAPSE_RANGE: 8,
  ZERO_RANGE: 16,
  INSERT_RANGE: 32,
  UNSHARE_RANGE: 64,
} as const
export const SEEK = { SET: 0, CUR: 1, END: 2, DATA: 3, HOLE: 4 } as const
export const UTIME_NOW = 0x3fffffff
export const UTIME_OMIT = 0x3ffffffe
export const PROT = { READ: 1, WRITE: 2 } as const
export const MAP = { SHARED: 1, PRIVATE: 2 } as const
export const MNT = { FORCE: 1, DETACH: 2, NOFOLLOW: 8 } as const
export const MS = {
  RDONLY: 1,
  REMOUNT: 32,
  NOATIME: 1024,
  BIND: 4096,
  PRIVATE: 1 << 18,
  SHARED: 1 << 20,
} as const

const c = {
  openat: bind('int openat(int dirfd, const uint8_t *path, int flags, uint32_t mode)'),
  close: bind('int close(int fd)'),
  pread: bind('int64_t pread(int fd, uint8_t *buf, size_t count, int64_t offset)'),
  pwrite: bind('int64_t pwrite(int fd, const uint8_t *buf, size_t count, int64_t offset)'),
  read: bind('int64_t read(int fd, uint8_t *buf, size_t count)'),
  write: bind('int64_t write(int fd, const uint8_t *buf, size_t count)'),
  lseek: bind('int64_t lseek(int fd, int64_t offset, int whence)'),
  ftruncate: bind('int ftruncate(int fd, int64_t length)'),
  truncate: bind('int truncate(const uint8_t *path, int64_t length)'),
  fallocate: bind('int fallocate(int fd, int mode, int64_t offset, int64_t length)'),
  copyFileRange: bind(
    'int64_t copy_file_range(int fdIn, int64_t *offIn, int fdOut, int64_t *offOut, size_t length, uint32_t flags)',
  ),
  fsync: bind('int fsync(int fd)'),
  fdatasync: bind('int fdatasync(int fd)'),
  syncfs: bind('int syncfs(int fd)'),
  mkdirat: bind('int mkdirat(int dirfd, const uint8_t *path, uint32_t mode)'),
  mknodat: bind('int mknodat(int dirfd, const uint8_t *path, uint32_t mode, uint64_t dev)'),
  symlinkat: bind('int symlinkat(const uint8_t *target, int dirfd, const uint8_t *path)'),
  linkat: bind(
    'int linkat(int oldDir, const uint8_t *oldPath, int newDir, const uint8_t *newPath, int flags)',
  ),
  unlinkat: bind('int unlinkat(int dirfd, const uint8_t *path, int flags)'),
  renameat2: bind(
    'int renameat2(int oldDir, const uint8_t *oldPath, int newDir, const uint8_t *newPath, uint32_t flags)',
  ),
  fchmod: bind('int fchmod(int fd, uint32_t mode)'),
  fchmodat: bind('int fchmodat(int dirfd, const uint8_t *path, uint32_t mode, int flags)'),
  fchownat: bind(
    'int fchownat(int dirfd, const uint8_t *path, uint32_t uid, uint32_t gid, int flags)',
  ),
  utimensat: bind('int utimensat(int dirfd, const uint8_t *path, const int64_t *times, int flags)'),
  futimens: bind('int futimens(int fd, const int64_t *times)'),
  statx: bind(
    'int statx(int dirfd, const uint8_t *path, int flags, uint32_t mask, uint8_t *statxbuf)',
  ),
  readlinkat: bind('int64_t readlinkat(int dirfd, const uint8_t *path, uint8_t *buf, size_t size)'),
  getdents64: bind('int64_t getdents64(int fd, uint8_t *buf, size_t size)'),
  faccessat: bind('int faccessat(int dirfd, const uint8_t *path, int mode, int flags)'),
  getxattr: bind(
    'int64_t getxattr(const uint8_t *path, const uint8_t *name, uint8_t *value, size_t size)',
  ),
  lgetxattr: bind(
    'int64_t lgetxattr(const uint8_t *path, const uint8_t *name, uint8_t *value, size_t size)',
  ),
  fgetxattr: bind('int64_t fgetxattr(int fd, const uint8_t *name, uint8_t *value, size_t size)'),
  setxattr: bind(
    'int setxattr(const uint8_t *path, const uint8_t *name, const uint8_t *value, size_t size, int flags)',
  ),
  lsetxattr: bind(
    'int lsetxattr(const uint8_t *path, const uint8_t *name, const uint8_t *value, size_t size, int flags)',
  ),
  fsetxattr: bind(
    'int fsetxattr(int fd, const uint8_t *name, const uint8_t *value, size_t size, int flags)',
  ),
  listxattr: bind('int64_t listxattr(const uint8_t *path, uint8_t *list, size_t size)'),
  llistxattr: bind('int64_t llistxattr(const uint8_t *path, uint8_t *list, size_t size)'),
  flistxattr: bind('int64_t flistxattr(int fd, uint8_t *list, size_t size)'),
  removexattr: bind('int removexattr(const uint8_t *path, const uint8_t *name)'),
  lremovexattr: bind('int lremovexattr(const uint8_t *path, const uint8_t *name)'),
  fremovexattr: bind('int fremovexattr(int fd, const uint8_t *name)'),
  statfs: bind('int statfs(const uint8_t *path, uint8_t *buf)'),
  ioctl: bind('int ioctl(int fd, uint64_t request, void *arg)'),
  flock: bind('int flock(int fd, int operation)'),
  umask: bind('uint32_t umask(uint32_t mask)'),
  syscall3: bind('int64_t syscall(int64_t number, int64_t a, int64_t b, int64_t c)'),
  openTree: bind(
    'int64_t syscall(int64_t number, int64_t dir, const uint8_t *path, int64_t flags)',
  ),
  mountSetattr: bind(
    'int64_t syscall(int64_t number, int64_t dir, const char *path, int64_t flags, const uint64_t *attr, int64_t size)',
  ),
  moveMount: bind(
    'int64_t syscall(int64_t number, int64_t from, const char *name, int64_t to, const uint8_t *target, int64_t flags)',
  ),
  setgroups: bind('int64_t syscall(int64_t number, int64_t size, const uint32_t *list)'),
  mount: bind(
    'int mount(const uint8_t *source, const uint8_t *target, const char *type, uint64_t flags, const uint8_t *data)',
  ),
  umount2: bind('int umount2(const uint8_t *target, int flags)'),
  madvise: bind('int madvise(void *address, size_t length, int advice)'),
  msync: bind('int msync(void *address, size_t length, int flags)'),
  munmap: bind('int munmap(void *address, size_t length)'),
}
const mmapCall = libc.func(
  'void *mmap(void *address, size_t length, int prot, int flags, int fd, int64_t offset)',
) as (...args: unknown[]) => unknown

export const close = (fd: number): number => done(c.close(fd))
export const openat = (dir: number, path: string, flags: number, mode = 0): number =>
  done(c.openat(dir, cString(path), flags | O.CLOEXEC, mode))
export const open = (path: string, flags: number, mode = 0): number =>
  openat(AT_FDCWD, path, flags, mode)

export const read = (fd: number, buf: Buffer): number => done(c.read(fd, buf, buf.length))
export const pread = (fd: number, buf: Buffer, offset: number | bigint): number =>
  done(c.pread(fd, buf, buf.length, offset))
export const write = (fd: number, buf: Buffer): number => done(c.write(fd, buf, buf.length))
export const pwrite = (fd: number, buf: Buffer, offset: number | bigint): number =>
  done(c.pwrite(fd, buf, buf.length, offset))
export const lseek = (fd: number, offset: number | bigint, whence: number): number | bigint => {
  const result = libcLseek(fd, offset, whence)
  return result < 0 ? -koffi.errno() : result
}
const libcLseek = c.lseek as (
  fd: number,
  offset: number | bigint,
  whence: number,
) => number | bigint
export const ftruncate = (fd: number, length: number | bigint): number =>
  done(c.ftruncate(fd, length))
export const truncate = (path: string, length: number | bigint): number =>
  done(c.truncate(cString(path), length))
export const fallocate = (
  fd: number,
  mode: number,
  offset: number | bigint,
  length: number | bigint,
): number => done(c.fallocate(fd, mode, offset, length))
/** An offset of -1 uses and moves the descriptor's own position. */
export const copyFileRange = (
  fdIn: number,
  offIn: number | bigint,
  fdOut: number,
  offOut: number | bigint,
  length: number,
): number =>
  done(
    c.copyFileRange(
      fdIn,
      offIn < 0 ? null : BigInt64Array.of(BigInt(offIn)),
      fdOut,
      offOut < 0 ? null : BigInt64Array.of(BigInt(offOut)),
      length,
      0,
    ),
  )
export const fsync = (fd: number): number => done(c.fsync(fd))
export const fdatasync = (fd: number): number => done(c.fdatasync(fd))
export const syncfs = (fd: number): number => done(c.syncfs(fd))

export const mkdirat = (dir: number, path: string, mode: number): number =>
  done(c.mkdirat(dir, cString(path), mode))
export const makedev = (major: number, minor: number): bigint => {
  const a = BigInt(major)
  const b = BigInt(minor)
  return (b & 0xffn) | ((a & 0xfffn) << 8n) | ((b & ~0xffn) << 12n) | ((a & ~0xfffn) << 32n)
}
export const mknodat = (
  dir: number,
  path: string,
  mode: number,
  major: number,
  minor: number,
): number => done(c.mknodat(dir, cString(path), mode, makedev(major, minor)))
export const symlinkat = (target: string, dir: number, path: string): number =>
  done(c.symlinkat(cString(target), dir, cString(path)))
export const linkat = (
  oldDir: number,
  oldPath: string,
  newDir: number,
  newPath: string,
  flags: number,
): number => done(c.linkat(oldDir, cString(oldPath), newDir, cString(newPath), flags))
export const unlinkat = (dir: number, path: string, flags: number): number =>
  done(c.unlinkat(dir, cString(path), flags))
export const renameat2 = (
  oldDir: number,
  oldPath: string,
  newDir: number,
  newPath: string,
  flags: number,
): number => done(c.renameat2(oldDir, cString(oldPath), newDir, cString(newPath), flags))
export const fchmod = (fd: number, mode: number): number => done(c.fchmod(fd, mode))
export const fchmodat = (dir: number, path: string, mode: number): number =>
  done(c.fchmodat(dir, cString(path), mode, 0))
/** An id of -1 is not changed. */
export const fchownat = (
  dir: number,
  path: string,
  uid: number,
  gid: number,
  flags: number,
): number => done(c.fchownat(dir, cString(path), uid >>> 0, gid >>> 0, flags))

export interface Time {
  sec: number
  nsec: number
}
const timeWords = (atime: Time, mtime: Time): BigInt64Array =>
  BigInt64Array.of(BigInt(atime.sec), BigInt(atime.nsec), BigInt(mtime.sec), BigInt(mtime.nsec))
export const utimensat = (
  dir: number,
  path: string,
  atime: Time,
  mtime: Time,
  flags: number,
): number => done(c.utimensat(dir, cString(path), timeWords(atime, mtime), flags))
export const futimens = (fd: number, atime: Time, mtime: Time): number =>
  done(c.futimens(fd, timeWords(atime, mtime)))

export interface Stat {
  ino: bigint
  dev: number
  mode: number
  nlink: number
  uid: number
  gid: number
  size: number
  blocks: number
  rdev: number
  /** Nanoseconds since 1970. */
  atime: bigint
  mtime: bigint
  ctime: bigint
  btime: bigint
  /** The STATX_ATTR_* bits that are set. */
  attributes: bigint
}
const statBuffer = Buffer.alloc(256)
const nanoseconds = (offset: number): bigint =>
  statBuffer.readBigInt64LE(offset) * 1_000_000_000n + BigInt(statBuffer.readUInt32LE(offset + 8))
export const STATX = {
  MODE: 2,
  NLINK: 4,
  UID: 8,
  MTIME: 0x40,
  CTIME: 0x80,
  SIZE: 0x200,
  ALL: 0xfff,
} as const
/**
 * `mask` is the requested mask. The default is STATX_BASIC_STATS and STATX_BTIME; a smaller mask
 * lets a test see cached attributes.
 */
export const statx = (
  dir: number,
  path: string,
  flags: number,
  mask: number = STATX.ALL,
): Stat | number => {
  const result = done(c.statx(dir, cString(path), flags, mask, statBuffer))
  if (result < 0) return result
  const b = statBuffer
  return {
    ino: b.readBigUInt64LE(32),
    dev: b.readUInt32LE(136) * 0x100000 + b.readUInt32LE(140),
    mode: b.readUInt16LE(28),
    nlink: b.readUInt32LE(16),
    uid: b.readUInt32LE(20),
    gid: b.readUInt32LE(24),
    size: Number(b.readBigUInt64LE(40)),
    blocks: Number(b.readBigUInt64LE(48)),
    rdev: b.readUInt32LE(128) * 0x100000 + b.readUInt32LE(132),
    atime: nanoseconds(64),
    mtime: nanoseconds(112),
    ctime: nanoseconds(96),
    btime: nanoseconds(80),
    attributes: b.readBigUInt64LE(8),
  }
}
export const lstat = (dir: number, path: string): Stat | number =>
  statx(dir, path, AT_SYMLINK_NOFOLLOW)
export const fstat = (fd: number): Stat | number => statx(fd, '', AT_EMPTY_PATH)

export const readlinkat = (dir: number, path: string, room = 4096): string | number => {
  const buf = Buffer.alloc(room)
  const length = done(c.readlinkat(dir, cString(path), buf, room))
  return length < 0 ? length : buf.toString('latin1', 0, length)
}
export const faccessat = (dir: number, path: string, mode: number, flags: number): number =>
  done(c.faccessat(dir, cString(path), mode, flags))

export interface Dirent {
  name: string
  ino: bigint
  type: number
  cookie: bigint
}
let direntBuffer = Buffer.alloc(32768)
/** One getdents64 call. */
export const getdents = (fd: number, room: number): Dirent[] | number => {
  if (direntBuffer.length < room) direntBuffer = Buffer.alloc(room)
  const buf = direntBuffer
  const length = done(c.getdents64(fd, buf, room))
  if (length < 0) return length
  const entries: Dirent[] = []
  for (let at = 0; at < length;) {
    const size = buf.readUInt16LE(at + 16)
    let end = at + 19
    while (buf[end] !== 0) end++
    entries.push({
      ino: buf.readBigUInt64LE(at),
      cookie: buf.readBigInt64LE(at + 8),
      type: buf[at + 18] ?? 0,
      name: buf.toString('latin1', at + 19, end),
    })
    at += size
  }
  return entries
}
/** Everything from the descriptor's position to the end. */
export const allDirents = (fd: number, room = 32768): Dirent[] | number => {
  const all: Dirent[] = []
  for (;;) {
    const some = getdents(fd, room)
    if (typeof some === 'number') return some
    if (some.length === 0) return all
    all.push(...some)
    if (all.length > 100_000) throw new Error('a directory listing that does not end')
  }
}

/** The target of an xattr call: a path (following symlinks or not) or a descriptor. */
export type XattrTarget = { path: string; follow: boolean } | number
const room64k = Buffer.alloc(65536)
export const getxattr = (on: XattrTarget, name: string, room = 65536): Buffer | number => {
  const n = cString(name)
  const length = done(
    typeof on === 'number'
      ? c.fgetxattr(on, n, room64k, room)
      : (on.follow ? c.getxattr : c.lgetxattr)(cString(on.path), n, room64k, room),
  )
  if (length < 0) return length
  return room === 0 ? Buffer.from(String(length)) : Buffer.from(room64k.subarray(0, length))
}
export const setxattr = (on: XattrTarget, name: string, value: Buffer, flags: number): number => {
  const n = cString(name)
  return done(
    typeof on === 'number'
      ? c.fsetxattr(on, n, value, value.length, flags)
      : (on.follow ? c.setxattr : c.lsetxattr)(cString(on.path), n, value, value.length, flags),
  )
}
export const listxattr = (on: XattrTarget, room = 65536): string[] | number => {
  const length = done(
    typeof on === 'number'
      ? c.flistxattr(on, room64k, room)
      : (on.follow ? c.listxattr : c.llistxattr)(cString(on.path), room64k, room),
  )
  if (length < 0) return length
  if (room === 0) return [String(length)]
  return length === 0
    ? []
    : room64k
        .toString('latin1', 0, length - 1)
        .split('\0')
        .toSorted()
}
export const removexattr = (on: XattrTarget, name: string): number => {
  const n = cString(name)
  return done(
    typeof on === 'number'
      ? c.fremovexattr(on, n)
      : (on.follow ? c.removexattr : c.lremovexattr)(cString(on.path), n),
  )
}

export interface StatFs {
  type: number
  bsize: number
  blocks: number
  files: number
  namelen: number
}
export const statfs = (path: string): StatFs | number => {
  const buf = Buffer.alloc(256)
  const result = done(c.statfs(cString(path), buf))
  if (result < 0) return result
  return {
    type: Number(buf.readBigUInt64LE(0)),
    bsize: Number(buf.readBigUInt64LE(8)),
    blocks: Number(buf.readBigUInt64LE(16)),
    files: Number(buf.readBigUInt64LE(40)),
    namelen: Number(buf.readBigUInt64LE(64)),
  }
}

const FS_IOC_GETFLAGS = 0x80086601
const FS_IOC_SETFLAGS = 0x40086602
export const getFlags = (fd: number): number => {
  const word = Buffer.alloc(8)
  const result = done(c.ioctl(fd, FS_IOC_GETFLAGS, word))
  return result < 0 ? result : word.readUInt32LE(0)
}
export const setFlags = (fd: number, flags: number): number => {
  const word = Buffer.alloc(8)
  word.writeUInt32LE(flags >>> 0)
  return done(c.ioctl(fd, FS_IOC_SETFLAGS, word))
}
export const flock = (fd: number, operation: number): number => done(c.flock(fd, operation))

const MADV_POPULATE_READ = 22
const MADV_POPULATE_WRITE = 23

/**
 * Maps a file while `use` runs. Returns -errno if mmap(2) fails, and -EFAULT if an access would
 * cause SIGBUS.
 */
export const withMapping = <T>(
  fd: number,
  length: number,
  prot: number,
  flags: number,
  offset: number,
  use: (view: Uint8Array) => T,
  touched = 0,
): T | number => {
  const address = mmapCall(null, length, prot, flags, fd, offset)
  if (BigInt.asIntN(64, koffi.address(address)) === -1n) return -koffi.errno()
  try {
    if (touched > 0 && prot & (PROT.READ | PROT.WRITE)) {
      const advice = prot & PROT.WRITE ? MADV_POPULATE_WRITE : MADV_POPULATE_READ
      const result = done(c.madvise(address, touched, advice))
      if (result < 0) return result
    }
    const result = use(new Uint8Array(koffi.view(address, length)))
    const MS_SYNC = 4
    if (prot & PROT.WRITE && flags & MAP.SHARED) c.msync(address, length, MS_SYNC)
    return result
  } finally {
    c.munmap(address, length)
  }
}

const alignedPool = Buffer.alloc((1 << 20) + 4096)
const alignedStart = 4096 - Number(koffi.address(alignedPool) % 4096n)
/** Aligned memory for O_DIRECT: one area, for one call at a time. */
export const alignedBuffer = (length: number): Buffer =>
  alignedPool.subarray(alignedStart, alignedStart + Math.min(length, 1 << 20))

export const umask = (mask: number): number => c.umask(mask)

/** The ids of a caller: effective, real and file system ids; root keeps itself as the saved id. */
export interface Credentials {
  uid: number
  gid: number
  groups: number[]
}
const SYS_SETRESUID = arm ? 147 : 117
const SYS_SETRESGID = arm ? 149 : 119
const SYS_SETGROUPS = arm ? 159 : 116
const mustBeZero = (result: number, what: string): void => {
  if (done(result) !== 0) throw new Error(`${what}: errno ${koffi.errno()}`)
}
/** Runs `use` with other ids, by raw calls, so that only this thread changes. */
export const withCredentials = <T>(caller: Credentials, use: () => T): T => {
  if (caller.uid === 0) return use()
  mustBeZero(
    c.setgroups(SYS_SETGROUPS, caller.groups.length, Uint32Array.from(caller.groups)),
    'setgroups',
  )
  mustBeZero(c.syscall3(SYS_SETRESGID, caller.gid, caller.gid, 0), 'setresgid')
  mustBeZero(c.syscall3(SYS_SETRESUID, caller.uid, caller.uid, 0), 'setresuid')
  try {
    return use()
  } finally {
    mustBeZero(c.syscall3(SYS_SETRESUID, 0, 0, 0), 'setresuid back')
    mustBeZero(c.syscall3(SYS_SETRESGID, 0, 0, 0), 'setresgid back')
    mustBeZero(c.setgroups(SYS_SETGROUPS, 0, new Uint32Array(1)), 'setgroups back')
  }
}

export const mount = (
  source: string,
  target: string,
  type: string | null,
  flags: number,
  data: string,
): number => done(c.mount(cString(source), cString(target), type, flags, cString(data)))
export const umount = (target: string, flags = 0): number => done(c.umount2(cString(target), flags))

const SYS_OPEN_TREE = 428
const SYS_MOVE_MOUNT = 429
const SYS_MOUNT_SETATTR = 442
const OPEN_TREE_CLONE = 1
const MOUNT_ATTR_IDMAP = 0x10_0000n
const MOVE_MOUNT_F_EMPTY_PATH = 4

/**
 * Creates a bind mount with the idmap of a user namespace (mount_setattr(2)). Returns 0 or -errno.
 */
export const bindIdmapped = (source: string, target: string, userns: string): number => {
  const ns = open(userns, O.RDONLY)
  if (ns < 0) return ns
  const tree = done(c.openTree(SYS_OPEN_TREE, AT_FDCWD, cString(source), OPEN_TREE_CLONE))
  let result = tree
  if (tree >= 0) {
    const attr = BigUint64Array.of(MOUNT_ATTR_IDMAP, 0n, 0n, BigInt(ns))
    result = done(c.mountSetattr(SYS_MOUNT_SETATTR, tree, '', AT_EMPTY_PATH, attr, 32))
    if (result >= 0) {
      const flags = MOVE_MOUNT_F_EMPTY_PATH
      result = done(c.moveMount(SYS_MOVE_MOUNT, tree, '', AT_FDCWD, cString(target), flags))
    }
    close(tree)
  }
  close(ns)
  return result
}

const AF_UNIX = 1
const SOCK_DGRAM = 2
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const socketOf = bind('int socket(int, int, int)')
const bindTo = bind('int bind(int, void *, uint32_t)')
const recv = bind('int64_t recv(int, void *, size_t, int)')

/**
 * Creates a datagram socket at a path, as syslogd does. `next` returns the next datagram, if there
 * is one.
 */
export const datagramsAt = (path: string): { next: () => string | undefined; close(): void } => {
  const fd = done(socketOf(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0))
  const name = Buffer.alloc(2 + Buffer.byteLength(path) + 1)
  name.writeUInt16LE(AF_UNIX)
  name.write(path, 2)
  const bound = done(bindTo(fd, name, name.length))
  if (bound < 0) throw new Error(`bind: ${bound}`)
  const buffer = Buffer.alloc(65536)
  return {
    next: () => {
      const length = done(recv(fd, buffer, buffer.length, 0))
      return length < 0 ? undefined : buffer.toString('utf8', 0, length)
    },
    close: () => fs.closeSync(fd),
  }
}

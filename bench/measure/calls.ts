/**
 * The system calls of clients, with minimal overhead between the clock and the kernel.
 *
 * A call of Node's fs takes longer than the system call on a warm kernel file system, and its stat
 * also requests the birth time, which the usual tools do not; one workload measures that. A call
 * through koffi takes about as long as a call in C. Paths are converted to buffers before the clock
 * starts.
 *
 * A failed call throws, because a fast answer with an error is no valid time.
 */

// oxlint-disable-next-line no-restricted-imports -- the clients share no code with what is measured
import koffi from 'koffi'

const libc = koffi.load('libc.so.6')
const bind = (declaration: string): ((...args: unknown[]) => number) =>
  libc.func(declaration) as (...args: unknown[]) => number

/** A path for the calls: bytes with a terminating NUL. */
export type Path = Uint8Array
export const path = (text: string): Path => Buffer.from(`${text}\0`)

export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  CREAT: 0o100,
  EXCL: 0o200,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  DIRECTORY: process.arch === 'arm64' ? 0o40000 : 0o200000,
} as const

export const ENOENT = 2
export const EBUSY = 16

const c = {
  open: bind('int open(const uint8_t *path, int flags, uint32_t mode)'),
  openat: bind('int openat(int dirfd, const uint8_t *path, int flags, uint32_t mode)'),
  close: bind('int close(int fd)'),
  read: bind('int64_t read(int fd, uint8_t *buf, size_t count)'),
  write: bind('int64_t write(int fd, const uint8_t *buf, size_t count)'),
  pread: bind('int64_t pread(int fd, uint8_t *buf, size_t count, int64_t offset)'),
  pwrite: bind('int64_t pwrite(int fd, const uint8_t *buf, size_t count, int64_t offset)'),
  fsync: bind('int fsync(int fd)'),
  statx: bind(
    'int statx(int dirfd, const uint8_t *path, int flags, uint32_t mask, uint8_t *statxbuf)',
  ),
  getdents64: bind('int64_t getdents64(int fd, uint8_t *buf, size_t size)'),
  mkdir: bind('int mkdir(const uint8_t *path, uint32_t mode)'),
  unlinkat: bind('int unlinkat(int dirfd, const uint8_t *path, int flags)'),
  rename: bind('int rename(const uint8_t *from, const uint8_t *to)'),
  chmod: bind('int chmod(const uint8_t *path, uint32_t mode)'),
  munmap: bind('int munmap(void *addr, size_t length)'),
  getrusage: bind('int getrusage(int who, int64_t *usage)'),
  prctl: bind(
    'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
  ),
  waitpid: bind('int waitpid(int pid, void *status, int options)'),
  clockGettime: bind('int clock_gettime(int32_t clock, int64_t *time)'),
  umount2: bind('int umount2(const uint8_t *target, int flags)'),
}
const mmapCall = libc.func(
  'void *mmap(void *addr, size_t length, int prot, int flags, int fd, int64_t offset)',
) as (...args: unknown[]) => unknown
const memchrCall = libc.func('void *memchr(void *area, int byte, size_t length)') as (
  ...args: unknown[]
) => unknown

/** Returns the result of a call that must not fail. */
const must = (result: number | bigint, call: string): number => {
  if (result < 0) throw new Error(`${call}: errno ${koffi.errno()}`)
  return Number(result)
}

export const open = (at: Path, flags: number, mode = 0o644): number =>
  must(c.open(at, flags, mode), 'open')
export const openDir = (dir: number, name: Path): number =>
  must(c.openat(dir, name, O.RDONLY | O.DIRECTORY, 0), 'openat')
export const close = (fd: number): void => void must(c.close(fd), 'close')
export const read = (fd: number, into: Buffer): number =>
  must(c.read(fd, into, into.length), 'read')
export const pread = (fd: number, into: Buffer, offset: number): number =>
  must(c.pread(fd, into, into.length, offset), 'pread')
/** Writes a whole buffer, or its first bytes. */
export const write = (fd: number, from: Buffer, length = from.length): void => {
  if (must(c.write(fd, from, length), 'write') !== length) throw new Error('write: too short')
}
export const pwrite = (fd: number, from: Buffer, offset: number): void => {
  if (must(c.pwrite(fd, from, from.length, offset), 'pwrite') !== from.length)
    throw new Error('pwrite: too short')
}
export const fsync = (fd: number): void => void must(c.fsync(fd), 'fsync')
export const mkdir = (at: Path): void => void must(c.mkdir(at, 0o755), 'mkdir')
export const rename = (from: Path, to: Path): void => void must(c.rename(from, to), 'rename')
export const chmod = (at: Path, mode: number): void => void must(c.chmod(at, mode), 'chmod')

const AT_FDCWD = -100
const AT_REMOVEDIR = 0x200
export const unlink = (at: Path): void => void must(c.unlinkat(AT_FDCWD, at, 0), 'unlink')
export const unlinkIn = (dir: number, name: Path): void =>
  void must(c.unlinkat(dir, name, 0), 'unlinkat')
export const rmdir = (at: Path): void => rmdirIn(AT_FDCWD, at)
export const rmdirIn = (dir: number, name: Path): void =>
  void must(c.unlinkat(dir, name, AT_REMOVEDIR), 'unlinkat of a directory')

const AT_SYMLINK_NOFOLLOW = 0x100
/** The mask of stat(2): everything but the birth time. */
const STATX_BASIC_STATS = 0x7ff
const statBuffer = Buffer.alloc(256)
const S_IFMT = 0o170000
const S_IFDIR = 0o040000

/** lstat(2). Returns whether it is a directory. */
export const lstatIn = (dir: number, name: Path): boolean => {
  must(c.statx(dir, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, statBuffer), 'statx')
  return (statBuffer.readUInt16LE(28) & S_IFMT) === S_IFDIR
}
export const lstat = (at: Path): boolean => lstatIn(AT_FDCWD, at)
/** lstat(2) of a name that must not exist. */
export const lstatMissing = (at: Path): void => {
  const result = c.statx(AT_FDCWD, at, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, statBuffer)
  if (result === 0 || koffi.errno() !== ENOENT)
    throw new Error('statx of a missing name: not ENOENT')
}

/** The d_type values of getdents64(2). */
export const DT = { UNKNOWN: 0, DIR: 4 } as const
/** The buffer size of find(1), ls(1) and rm(1). */
const DIRENTS = 32768

/**
 * Reads a directory completely. Names passed to `each` are only valid until it returns; `.` and
 * `..` are left out. Reentrant: another directory may be read in the callback.
 */
export const readDir = (fd: number, each: (name: Path, type: number) => void): void => {
  const buffer = Buffer.allocUnsafeSlow(DIRENTS)
  for (;;) {
    const filled = must(c.getdents64(fd, buffer, DIRENTS), 'getdents64')
    if (filled === 0) return
    for (let at = 0; at < filled;) {
      const length = buffer.readUInt16LE(at + 16)
      const name = at + 19
      const isDot = buffer[name] === 0x2e
      const skip =
        isDot && (buffer[name + 1] === 0 || (buffer[name + 1] === 0x2e && buffer[name + 2] === 0))
      if (!skip) each(buffer.subarray(name, at + length), buffer[at + 18] ?? DT.UNKNOWN)
      at += length
    }
  }
}

const PROT_READ = 1
const MAP_SHARED = 1
/** Reads each byte of a file through a mapping and checks that none is 0. */
export const readMapped = (fd: number, length: number): void => {
  const address = mmapCall(null, length, PROT_READ, MAP_SHARED, fd, 0)
  if (BigInt.asIntN(64, koffi.address(address)) === -1n)
    throw new Error(`mmap: errno ${koffi.errno()}`)
  const found = memchrCall(address, 0, length)
  must(c.munmap(address, length), 'munmap')
  if (found !== null) throw new Error('the mapping holds a byte which the file does not')
}

const RUSAGE_CHILDREN = -1
const usage = new BigInt64Array(18)
/**
 * CPU seconds of all children that have ended and were waited for, including their own such
 * children.
 */
export const cpuOfEnded = (): number => {
  must(c.getrusage(RUSAGE_CHILDREN, usage), 'getrusage')
  const [userS = 0n, userUs = 0n, systemS = 0n, systemUs = 0n] = usage
  return Number(userS + systemS) + Number(userUs + systemUs) / 1e6
}

const PR_SET_CHILD_SUBREAPER = 36
/** Makes this process the subreaper: an orphaned descendant becomes its child. */
export const becomeReaper = (): void =>
  void must(c.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 'prctl')

const WNOHANG = 1
/** Reaps a child, which adds its CPU time to the total of ended children. */
export const collect = (pid: number): void => void c.waitpid(pid, null, WNOHANG)

const time = new BigInt64Array(2)
/**
 * CPU seconds of another process with all its threads; 0 if it has ended. The process' CPU clock
 * (clock_getcpuclockid(3)) is exact, whereas /proc/PID/stat counts in hundredths of a second.
 */
export const cpuOf = (pid: number): number => {
  const CPUCLOCK_SCHED = 2
  if (c.clockGettime((~pid << 3) | CPUCLOCK_SCHED, time) !== 0) return 0
  return Number(time[0]) + Number(time[1]) / 1e9
}

export const MNT = { FORCE: 1, DETACH: 2, NOFOLLOW: 8 } as const
/** @returns 0 or -errno */
export const umount = (target: string, flags = 0): number =>
  c.umount2(path(target), flags | MNT.NOFOLLOW) === 0 ? 0 : -koffi.errno()

/**
 * The same calls by path for two file systems: a mount of the kernel, in this file, and a union
 * without a mount (union.ts). A call returns its result or -errno, so that a test can run it on
 * both and compare.
 */

import { readTree, type Tree } from './tree.js'
import * as sys from './syscalls.js'
import type { Stat, Time } from './syscalls.js'

/** The caller; the default is root with umask 022. */
export interface CallerIds {
  uid: number
  gid: number
  umask: number
}

export const ROOT: CallerIds = { uid: 0, gid: 0, umask: 0o022 }

type Awaitable<T> = T | Promise<T>

/** Paths are relative to the root of the file system: byte strings without `/` at either end. */
export interface Fs {
  /** O_CREAT | O_EXCL. */
  create(path: string, mode: number, caller?: CallerIds): Awaitable<number>
  mkdir(path: string, mode: number, caller?: CallerIds): Awaitable<number>
  mknod(
    path: string,
    mode: number,
    major?: number,
    minor?: number,
    caller?: CallerIds,
  ): Awaitable<number>
  symlink(target: string, path: string, caller?: CallerIds): Awaitable<number>
  link(from: string, to: string): Awaitable<number>
  unlink(path: string): Awaitable<number>
  rmdir(path: string): Awaitable<number>
  /** `flags`: RENAME_*. */
  rename(from: string, to: string, flags?: number): Awaitable<number>
  /** Opens an existing file for writing (with additional `flags`), writes, closes. */
  write(path: string, text: string, offset?: number, flags?: number): Awaitable<number>
  read(path: string): Awaitable<string | number>
  truncate(path: string, size: number): Awaitable<number>
  chmod(path: string, mode: number): Awaitable<number>
  /** An id of -1 is not changed. */
  chown(path: string, uid: number, gid: number): Awaitable<number>
  utimens(path: string, atime: Time, mtime: Time): Awaitable<number>
  readlink(path: string): Awaitable<string | number>
  setxattr(path: string, name: string, value: string, flags?: number): Awaitable<number>
  getxattr(path: string, name: string): Awaitable<string | number>
  listxattr(path: string): Awaitable<string[] | number>
  removexattr(path: string, name: string): Awaitable<number>
  getFlags(path: string): Awaitable<number>
  setFlags(path: string, flags: number): Awaitable<number>
  stat(path: string): Awaitable<Stat | number>
  /** Names without `.` and `..`, sorted. */
  list(path: string): Awaitable<string[] | number>
  tree(): Awaitable<Tree>
}

const at = sys.AT_FDCWD

/** Runs `use` as a caller with its umask. */
const as = <T>(caller: CallerIds, use: () => T): T =>
  sys.withCredentials({ uid: caller.uid, gid: caller.gid, groups: [] }, () => {
    const before = sys.umask(caller.umask)
    try {
      return use()
    } finally {
      sys.umask(before)
    }
  })

/** A directory that the kernel serves. */
export class KernelFs implements Fs {
  readonly top: string

  constructor(top: string) {
    this.top = top
  }

  #path(path: string): string {
    return path === '' ? this.top : `${this.top}/${path}`
  }

  #on(path: string): { path: string; follow: boolean } {
    return { path: this.#path(path), follow: false }
  }

  /** Opens, uses, closes; `use` is not called if the open fails. */
  #with<T>(path: string, flags: number, use: (fd: number) => T): T | number {
    // O_NONBLOCK: opening a FIFO without a peer must not block the test.
    const fd = sys.open(this.#path(path), flags | sys.O.NOFOLLOW | sys.O.NONBLOCK)
    if (fd < 0) return fd
    try {
      return use(fd)
    } finally {
      sys.close(fd)
    }
  }

  create(path: string, mode: number, caller = ROOT): number {
    const flags = sys.O.CREAT | sys.O.EXCL | sys.O.RDWR
    return as(caller, () => {
      const fd = sys.open(this.#path(path), flags, mode)
      return fd < 0 ? fd : sys.close(fd)
    })
  }

  mkdir(path: string, mode: number, caller = ROOT): number {
    return as(caller, () => sys.mkdirat(at, this.#path(path), mode))
  }

  mknod(path: string, mode: number, major = 0, minor = 0, caller = ROOT): number {
    return as(caller, () => sys.mknodat(at, this.#path(path), mode, major, minor))
  }

  symlink(target: string, path: string, caller = ROOT): number {
    return as(caller, () => sys.symlinkat(target, at, this.#path(path)))
  }

  link(from: string, to: string): number {
    return sys.linkat(at, this.#path(from), at, this.#path(to), 0)
  }

  unlink(path: string): number {
    return sys.unlinkat(at, this.#path(path), 0)
  }

  rmdir(path: string): number {
    return sys.unlinkat(at, this.#path(path), sys.AT_REMOVEDIR)
  }

  rename(from: string, to: string, flags = 0): number {
    return sys.renameat2(at, this.#path(from), at, this.#path(to), flags)
  }

  write(path: string, text: string, offset = 0, flags = 0): number {
    return this.#with(path, sys.O.WRONLY | flags, fd =>
      text === '' ? 0 : sys.pwrite(fd, Buffer.from(text, 'latin1'), offset),
    )
  }

  read(path: string): string | number {
    return this.#with(path, sys.O.RDONLY, fd => {
      const stat = sys.fstat(fd)
      if (typeof stat === 'number') return stat
      const buf = Buffer.alloc(stat.size + 1)
      const got = sys.pread(fd, buf, 0)
      return got < 0 ? got : buf.latin1Slice(0, got)
    })
  }

  truncate(path: string, size: number): number {
    return sys.truncate(this.#path(path), size)
  }

  chmod(path: string, mode: number): number {
    return sys.fchmodat(at, this.#path(path), mode)
  }

  chown(path: string, uid: number, gid: number): number {
    return sys.fchownat(at, this.#path(path), uid, gid, sys.AT_SYMLINK_NOFOLLOW)
  }

  utimens(path: string, atime: Time, mtime: Time): number {
    return sys.utimensat(at, this.#path(path), atime, mtime, sys.AT_SYMLINK_NOFOLLOW)
  }

  readlink(path: string): string | number {
    return sys.readlinkat(at, this.#path(path))
  }

  setxattr(path: string, name: string, value: string, flags = 0): number {
    return sys.setxattr(this.#on(path), name, Buffer.from(value, 'latin1'), flags)
  }

  getxattr(path: string, name: string): string | number {
    const value = sys.getxattr(this.#on(path), name)
    return typeof value === 'number' ? value : value.latin1Slice()
  }

  listxattr(path: string): string[] | number {
    return sys.listxattr(this.#on(path))
  }

  removexattr(path: string, name: string): number {
    return sys.removexattr(this.#on(path), name)
  }

  getFlags(path: string): number {
    return this.#with(path, sys.O.RDONLY, sys.getFlags)
  }

  setFlags(path: string, flags: number): number {
    return this.#with(path, sys.O.RDONLY, fd => sys.setFlags(fd, flags))
  }

  stat(path: string): Stat | number {
    return sys.lstat(at, this.#path(path))
  }

  list(path: string): string[] | number {
    return this.#with(path, sys.O.RDONLY | sys.O.DIRECTORY, fd => {
      const entries = sys.allDirents(fd)
      if (typeof entries === 'number') return entries
      return entries
        .map(entry => entry.name)
        .filter(name => name !== '.' && name !== '..')
        .toSorted()
    })
  }

  tree(): Tree {
    return readTree(this.top)
  }
}

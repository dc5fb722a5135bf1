/**
 * The npm package fuse-native 2.2.6: loads it, and declares the part of its interface that is used.
 * The package ships no types; these follow its README, its index.js and its fuse-native.c.
 */

import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { MountError } from '../errors.js'
import { preload } from '../sys/library.js'

/** The last version: the package is no longer maintained. */
export const PACKAGE = 'fuse-native@2.2.6'

/** Wakes the waiting thread of libfuse on the C side with a result: 0 or more, or -errno. */
export type Signal = (result: number, ...values: unknown[]) => void

/** A handler's callback: the result, or -errno, and the operation's value. */
export type Done = (result: number) => void
export type DoneWith<T> = (result: number, value?: T) => void

/**
 * The package turns it into a struct stat. It has 32 bits for all fields but size, blocks and times
 * (milliseconds).
 */
export interface PackageStat {
  mode: number
  uid: number
  gid: number
  size: number
  dev: number
  nlink: number
  ino: number
  rdev: number
  blksize: number
  blocks: number
  atime: number
  mtime: number
  ctime: number
}

/** 32 bits each. */
export interface PackageStatfs {
  bsize: number
  frsize: number
  blocks: number
  bfree: number
  bavail: number
  files: number
  ffree: number
  favail: number
  namemax: number
}

/**
 * The handlers in use. `getxattr`, `listxattr`, `fgetattr` and `utimens` are only listed so that
 * libfuse calls them: binding.ts implements them.
 */
export interface Operations {
  statfs(path: string, done: DoneWith<PackageStatfs>): void
  getattr(path: string, done: DoneWith<PackageStat>): void
  fgetattr: true
  fsync(path: string, datasync: number, fd: number, done: Done): void
  fsyncdir(path: string, datasync: number, fd: number, done: Done): void
  readdir(
    path: string,
    done: (result: number, names?: string[], stats?: PackageStat[]) => void,
  ): void
  truncate(path: string, size: number, done: Done): void
  ftruncate(path: string, fd: number, size: number, done: Done): void
  utimens: true
  readlink(path: string, done: DoneWith<string>): void
  chown(path: string, uid: number, gid: number, done: Done): void
  chmod(path: string, mode: number, done: Done): void
  mknod(path: string, mode: number, dev: number, done: Done): void
  setxattr?(
    path: string,
    name: string,
    value: Buffer,
    position: number,
    flags: number,
    done: Done,
  ): void
  getxattr?: true
  listxattr?: true
  removexattr?(path: string, name: string, done: Done): void
  open(path: string, flags: number, done: DoneWith<number>): void
  read(
    path: string,
    fd: number,
    buf: Buffer,
    length: number,
    position: number,
    done: DoneWith<number>,
  ): void
  write(
    path: string,
    fd: number,
    buf: Buffer,
    length: number,
    position: number,
    done: DoneWith<number>,
  ): void
  release(path: string, fd: number, done: Done): void
  create(path: string, mode: number, done: DoneWith<number>): void
  unlink(path: string, done: Done): void
  rename(from: string, to: string, done: Done): void
  link(from: string, to: string, done: Done): void
  symlink(target: string, path: string, done: Done): void
  mkdir(path: string, mode: number, done: Done): void
  rmdir(path: string, done: Done): void
}

/**
 * Called by the C side with its structure for the calling thread (as a Buffer), the operation and
 * the arguments.
 */
export type RawHandler = (thread: Buffer, opcode: number, ...args: unknown[]) => void

/**
 * The members of the class that are used or replaced here. Names with an underscore are private to
 * the package.
 */
export interface FuseInstance {
  _handlers: (RawHandler | undefined)[]
  /** The C side's structure for the mount. */
  _thread: Buffer | null
  /** Called when the kernel's INIT was answered. */
  _openCallback: OpenCallback | null
  /** Allocates memory for the C side. */
  readonly _malloc: (size: number) => Buffer
  _getImplementedArray(): Uint32Array
  _fuseOptions(): string
  /** Mounts; calls back when the kernel's INIT was answered. */
  open(done: OpenCallback): void
}

export type OpenCallback = (error: Error | null | undefined) => void

export interface FuseClass {
  new (mountpoint: string, operations: object, options: { timeout: false }): FuseInstance
}

/** The functions of the C side that are called here. */
export interface NativeBinding {
  readonly sizeof_fuse_thread_t: number
  fuse_native_mount(
    mountpoint: string,
    options: string,
    thread: Buffer,
    self: FuseInstance,
    malloc: (size: number) => Buffer,
    handlers: (RawHandler | undefined)[],
    implemented: Uint32Array,
  ): void
}

export interface Package {
  Fuse: FuseClass
  binding: NativeBinding
}

const codeOf = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error ? String(error.code) : undefined

/**
 * Loads the package, for the first time in this process.
 *
 * Its binary needs `libfuse.so.2`. The dynamic loader searches for it among the system's libraries,
 * not beside the binary, where the package has it under another file name. After that file is
 * loaded, the loader finds it by its soname. So no system package is needed, and the version of
 * libfuse is always the same.
 *
 * @throws {MountError} the package is missing, or cannot be loaded here
 */
export const loadPackage = (): Package => {
  const require = createRequire(import.meta.url)
  let directory: string
  try {
    directory = dirname(require.resolve('fuse-native/package.json'))
  } catch (error) {
    throw new MountError(
      `transport=fuse-native: the package is not installed; install it with: npm install --ignore-scripts ${PACKAGE} -- or use transport=kernel`,
      { option: 'transport', code: codeOf(error) ?? 'ENOENT', cause: error },
    )
  }
  preload(`${directory}/prebuilds/${process.platform}-${process.arch}/libfuse.so`)
  try {
    const Fuse = require('fuse-native') as FuseClass
    // The package does not export its binding. Loading it again returns the same object.
    const load = createRequire(`${directory}/index.js`)('node-gyp-build') as (of: string) => unknown
    return { Fuse, binding: load(directory) as NativeBinding }
  } catch (error) {
    const [reason = ''] = (error instanceof Error ? error.message : String(error)).split('\n')
    throw new MountError(
      `transport=fuse-native: ${PACKAGE} does not load on Node ${process.version}, ${process.arch}: ${reason}; use transport=kernel`,
      { option: 'transport', code: codeOf(error) ?? 'ENOEXEC', cause: error },
    )
  }
}

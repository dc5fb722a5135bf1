/**
 * The package's class with replacements for its faulty parts:
 *
 * | of the package    | fault                                                                              |
 * |-------------------|------------------------------------------------------------------------------------|
 * | `utimens`         | passes the access time twice; the other time is only in the C side's structure     |
 * | `fgetattr`        | drops the file handle                                                              |
 * | `getxattr`        | has no ERANGE: returns a length that exceeds its buffer                            |
 * | `listxattr`       | the same, and a size that is 128 too large                                         |
 * | `_fuseOptions`    | supports few of libfuse's options                                                  |
 * | `_open`           | refuses a directory that is already a mountpoint                                   |
 */

import { E } from '../sys/errno.js'
import { statOf } from './attrs.js'
import { fgetattr, getxattr, listxattr, utimens } from './handlers-attr.js'
import { handlersOf } from './handlers.js'
import type {
  FuseInstance,
  OpenCallback,
  Package,
  PackageStat,
  RawHandler,
  Signal,
} from './package.js'
import type { Session } from './session.js'

/**
 * Offsets of `atime` and `mtime` in `fuse_thread_locals_t` of fuse-native.c on 64-bit machines:
 * milliseconds as size_t, with times before 1970 wrapped around. Nine pointers and numbers, three
 * ids and a device number precede them.
 */
const ATIME_AT = 104
const MTIME_AT = 112

/**
 * Both times of a `utimens`, in milliseconds. Undefined if the structure's layout is not the known
 * one. The access time serves as the check, because the package passes it correctly, too.
 */
export const timesOf = (
  thread: Buffer | undefined,
  atimeLow: number,
  atimeHigh: number,
): { atime: number; mtime: number } | undefined => {
  if (thread === undefined || thread.length < MTIME_AT + 8) return undefined
  const low = thread.readUInt32LE(ATIME_AT)
  const high = thread.readUInt32LE(ATIME_AT + 4)
  if (low !== atimeLow || high !== atimeHigh) return undefined
  return {
    atime: Number(thread.readBigInt64LE(ATIME_AT)),
    mtime: Number(thread.readBigInt64LE(MTIME_AT)),
  }
}

/**
 * The array from which the C side builds a struct stat; the same as the package's own getStatArray.
 */
const statArray = (stat: PackageStat): Uint32Array => {
  const ints = new Uint32Array(18)
  const put64 = (at: number, value: number): void => {
    ints[at] = value % 0x1_0000_0000
    ints[at + 1] = Math.floor(value / 0x1_0000_0000)
  }
  ints.set([stat.mode, stat.uid, stat.gid])
  put64(3, stat.size)
  ints.set([stat.dev, stat.nlink, stat.ino, stat.rdev, stat.blksize], 5)
  put64(10, stat.blocks)
  put64(12, stat.atime)
  put64(14, stat.mtime)
  put64(16, stat.ctime)
  return ints
}

/** @param options the whole argument for libfuse, including `-o` */
export const makeFuse = (
  { Fuse, binding }: Package,
  mountpoint: string,
  s: Session,
  options: string,
): FuseInstance => {
  class Binding extends Fuse {
    constructor() {
      // The package's own time limit of 15 s is off, because the copy-up of a large file may take
      // longer.
      super(mountpoint, handlersOf(s), { timeout: false })
      this._handlers = this._handlers.map(handler => handler && remembering(handler))
    }

    override _fuseOptions(): string {
      return options
    }

    _open(done: OpenCallback): void {
      this._thread = Buffer.alloc(binding.sizeof_fuse_thread_t)
      this._openCallback = done
      try {
        binding.fuse_native_mount(
          mountpoint,
          options,
          this._thread,
          this,
          size => this._malloc(size),
          this._handlers,
          this._getImplementedArray(),
        )
      } catch (error) {
        done(error instanceof Error ? error : new Error(String(error)))
      }
    }

    _op_fgetattr(signal: Signal, path: string, fd: number): void {
      s.run(
        'fgetattr',
        () => fgetattr(s, path, fd),
        r => (r < 0 ? signal(r) : signal(0, statArray(statOf(s.attr, s.inos)))),
      )
    }

    _op_utimens(signal: Signal, path: string, atimeLow: number, atimeHigh: number): void {
      const times = timesOf(s.thread, atimeLow, atimeHigh)
      if (times === undefined) s.log.error({}, 'the times are not where fuse-native had them')
      const call = (): number =>
        times === undefined ? -E.EOPNOTSUPP : utimens(s, path, times.atime, times.mtime)
      s.run('utimens', call, r => signal(r))
    }

    // The answer includes the buffers: the C side detaches their memory.
    _op_getxattr(signal: Signal, path: string, name: string, into: Buffer): void {
      s.run(
        'getxattr',
        () => getxattr(s, path, name, into),
        r => signal(r, into.buffer),
      )
    }

    _op_listxattr(signal: Signal, path: string, into: Buffer): void {
      s.run(
        'listxattr',
        () => listxattr(s, path, into),
        r => signal(r, into.buffer),
      )
    }
  }

  /**
   * The thread of libfuse is not among the arguments of a handler, so it is stored in the session.
   */
  const remembering =
    (handler: RawHandler): RawHandler =>
    (thread, ...rest) => {
      s.thread = thread
      handler(thread, ...rest)
    }
  return new Binding()
}

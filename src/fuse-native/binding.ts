/**
 * The package's class with what had to be replaced in it:
 *
 * | of the package    | what is wrong with it                                                              |
 * |-------------------|------------------------------------------------------------------------------------|
 * | `utimens`         | gives the access time twice; the other one is only in the C side's own structure   |
 * | `fgetattr`        | drops the handle                                                                   |
 * | `getxattr`        | knows no ERANGE: says a length that its buffer does not have                       |
 * | `listxattr`       | the same, and a size that is 128 too large                                         |
 * | `_fuseOptions`    | knows few of libfuse's options                                                     |
 * | `_open`           | mounts on nothing that is a mountpoint already                                     |
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
 * Where `atime` and `mtime` are in `fuse_thread_locals_t` of fuse-native.c, on machines of 64 bits:
 * milliseconds as size_t, those before 1970 wrapped around. Nine pointers and numbers, three
 * identifiers and a device come first.
 */
const ATIME_AT = 104
const MTIME_AT = 112

/**
 * Both times of a `utimens`, in milliseconds; undefined where the structure is not the one that is
 * known, which the access time shows: it is there, and is told in the right way, too.
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

/** The array that the C side makes a struct stat of, as the package's own getStatArray. */
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

/** @param options the argument for libfuse, `-o` and all */
export const makeFuse = (
  { Fuse, binding }: Package,
  mountpoint: string,
  s: Session,
  options: string,
): FuseInstance => {
  class Binding extends Fuse {
    constructor() {
      // Its own limit of 15 s is off: the copy-up of a large file takes as long as it takes.
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

    // The buffers go back: the C side takes their memory away again.
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

  /** Which thread asks is not among the arguments of a handler. */
  const remembering =
    (handler: RawHandler): RawHandler =>
    (thread, ...rest) => {
      s.thread = thread
      handler(thread, ...rest)
    }
  return new Binding()
}

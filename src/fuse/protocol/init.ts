/**
 * FUSE_INIT: selects the features that the server requests from the kernel's offer
 * (fs/fuse/inode.c: fuse_new_init() and process_init_reply()). Pure functions.
 */

import {
  INIT_COMPAT_IN_SIZE,
  INIT_IN_SIZE,
  INIT_OUT_SIZE,
  InitFlag,
  InitFlag2,
  KERNEL_MAJOR,
  KERNEL_MINOR,
  MINOR_MIN,
} from './abi.js'
import { MAX_IO, MIN_WRITE, PAGE } from '../../config/tuning.js'
import type { Reply, Request } from './wire.js'

/** The way of file data: through the mount's page cache, or past it to the real file. */
export type IoMode = 'passthrough' | 'cached'

/** What the mount requests. */
export interface InitConfig {
  io: IoMode
  /** The kernel may write pages back later (WRITEBACK_CACHE). Only in `cached` mode. */
  writeback: boolean
  /** 1: the real files' filesystem is not stacked. 2: it may be stacked. */
  stackDepth: 1 | 2
  /** POSIX ACLs. Default: true. */
  acl?: boolean
  /** Bytes of data in the largest WRITE request. Default: MAX_IO. */
  maxWrite?: number
  /** Open and close files without OPEN and RELEASE requests, in `cached` mode. Default: false. */
  noOpen?: boolean
  /**
   * The kernel caches no directory listing and no symlink target, because each read must update an
   * access time. Default: false.
   */
  strictAtime?: boolean
}

/** The number of background requests (readahead, write-back) after which callers wait. */
const MAX_BACKGROUND = 64
const CONGESTION = 48

/** struct fuse_init_out */
export interface InitReply {
  major: number
  minor: number
  maxReadahead: number
  flags: number
  flags2: number
  maxBackground: number
  congestionThreshold: number
  maxWrite: number
  timeGran: number
  maxPages: number
  maxStackDepth: number
}

/** The outcome of INIT. */
export interface Negotiated {
  reply: InitReply
  /** A minor version that both the server and the kernel know. */
  minor: number
  io: IoMode
  writeback: boolean
  setxattrExt: boolean
  /** OPEN is answered with ENOSYS; the kernel then opens files without requests. */
  noOpen: boolean
}

/** Requested whenever the kernel offers them. */
const WANTED =
  InitFlag.ASYNC_READ +
  InitFlag.ATOMIC_O_TRUNC +
  InitFlag.BIG_WRITES +
  InitFlag.DONT_MASK +
  InitFlag.HAS_IOCTL_DIR +
  InitFlag.DO_READDIRPLUS +
  InitFlag.READDIRPLUS_AUTO +
  InitFlag.PARALLEL_DIROPS +
  InitFlag.POSIX_ACL +
  InitFlag.ABORT_ERROR +
  InitFlag.MAX_PAGES +
  InitFlag.CACHE_SYMLINKS +
  InitFlag.NO_OPENDIR_SUPPORT +
  InitFlag.HANDLE_KILLPRIV_V2 +
  InitFlag.SETXATTR_EXT +
  InitFlag.INIT_EXT
/**
 * NO_EXPORT_SUPPORT: like kernel overlayfs without nfs_export, which encodes file ids but does not
 * decode them.
 */
const WANTED2 = InitFlag2.DIRECT_IO_ALLOW_MMAP + InitFlag2.NO_EXPORT_SUPPORT

/** `again`: the kernel has a newer major version than 7 and will send INIT again. */
export type InitOutcome = Negotiated | 'again' | 'unsupported'

/** Decides the answer to an INIT request. */
export const negotiate = (req: Request, initConfig: InitConfig): InitOutcome => {
  if (req.bodyLength < INIT_COMPAT_IN_SIZE) return 'unsupported'
  const major = req.u32(0)
  const minor = req.u32(4)
  if (major > KERNEL_MAJOR) return 'again'
  if (major < KERNEL_MAJOR || minor < MINOR_MIN) return 'unsupported'

  const offered = req.u32(12)
  const extended = (offered & InitFlag.INIT_EXT) !== 0 && req.bodyLength >= INIT_IN_SIZE
  const offered2 = extended ? req.u32(16) : 0
  let flags = offered & WANTED
  if (!extended) flags &= ~InitFlag.INIT_EXT
  if (initConfig.acl === false) flags &= ~InitFlag.POSIX_ACL
  if (initConfig.strictAtime === true) flags &= ~InitFlag.CACHE_SYMLINKS
  let flags2 = offered2 & WANTED2

  // The kernel does not allow passthrough together with write-back.
  const passthrough = initConfig.io === 'passthrough' && (offered2 & InitFlag2.PASSTHROUGH) !== 0
  const writeback =
    initConfig.writeback && initConfig.io === 'cached' && (offered & InitFlag.WRITEBACK_CACHE) !== 0
  const noOpen =
    initConfig.noOpen === true && !passthrough && (offered & InitFlag.NO_OPEN_SUPPORT) !== 0
  // Without OPEN requests the server cannot truncate on O_TRUNC. Without ATOMIC_O_TRUNC the kernel
  // sends a SETATTR instead.
  if (noOpen) flags = (flags | InitFlag.NO_OPEN_SUPPORT) & ~InitFlag.ATOMIC_O_TRUNC
  if (passthrough) flags2 |= InitFlag2.PASSTHROUGH
  if (writeback) flags |= InitFlag.WRITEBACK_CACHE
  // With write-back the kernel trusts its own sizes and times. Without it, a changed size or time
  // from the server makes the kernel drop its cached pages.
  flags |= offered & (writeback ? InitFlag.EXPLICIT_INVAL_DATA : InitFlag.AUTO_INVAL_DATA)

  return {
    reply: {
      major: KERNEL_MAJOR,
      minor: Math.min(minor, KERNEL_MINOR),
      maxReadahead: req.u32(8),
      flags: flags >>> 0,
      flags2: flags2 >>> 0,
      maxBackground: MAX_BACKGROUND,
      congestionThreshold: CONGESTION,
      maxWrite: Math.min(Math.max(initConfig.maxWrite ?? MAX_IO, MIN_WRITE), MAX_IO),
      timeGran: 1,
      maxPages: (flags & InitFlag.MAX_PAGES) !== 0 ? MAX_IO / PAGE : 0,
      maxStackDepth: passthrough ? initConfig.stackDepth : 0,
    },
    minor: Math.min(minor, KERNEL_MINOR),
    io: passthrough ? 'passthrough' : 'cached',
    writeback,
    setxattrExt: (flags & InitFlag.SETXATTR_EXT) !== 0,
    noOpen,
  }
}

/** struct fuse_init_out at its full size, which kernels since 7.23 accept. */
export const writeInit = (rep: Reply, at: number, init: InitReply): number => {
  rep.zero(at, at + INIT_OUT_SIZE)
  rep.u32(at, init.major)
  rep.u32(at + 4, init.minor)
  rep.u32(at + 8, init.maxReadahead)
  rep.u32(at + 12, init.flags)
  rep.u32(at + 16, init.maxBackground | (init.congestionThreshold << 16))
  rep.u32(at + 20, init.maxWrite)
  rep.u32(at + 24, init.timeGran)
  rep.u32(at + 28, init.maxPages) // and u16 map_alignment
  rep.u32(at + 32, init.flags2)
  rep.u32(at + 36, init.maxStackDepth)
  return INIT_OUT_SIZE
}

/** The answer to a newer major version: it contains only the server's version. */
export const writeInitMajor = (rep: Reply, at: number): number => {
  rep.zero(at, at + INIT_OUT_SIZE)
  rep.u32(at, KERNEL_MAJOR)
  rep.u32(at + 4, KERNEL_MINOR)
  return INIT_OUT_SIZE
}

/** The names of the flags that are set, for the log. */
export const flagNames = (flags: number, flags2: number): string[] => {
  const names: string[] = []
  for (const [name, bit] of Object.entries(InitFlag)) if ((flags & bit) !== 0) names.push(name)
  for (const [name, bit] of Object.entries(InitFlag2)) if ((flags2 & bit) !== 0) names.push(name)
  return names
}

/**
 * Passthrough: whether this process can use it, backing ids (fs/fuse/backing.c), and the check for
 * other writers of a file.
 */

import type { Logger } from '../../log.js'
import {
  CAP_SYS_ADMIN,
  FUSE_SUPER_MAGIC,
  O_DIRECT,
  OVERLAYFS_SUPER_MAGIC,
} from '../../sys/constants.js'
import { E, errnoName } from '../../sys/errno.js'
import { close, ioctl } from '../../sys/io.js'
import { isOpenForWriting, reopenForReading } from '../../sys/lease.js'
import { hasCap, inInitialNamespace } from '../../sys/proc.js'
import { DEV_IOC_BACKING_CLOSE, DEV_IOC_BACKING_OPEN } from '../protocol/abi.js'

/** Calls to the kernel about real files, by descriptor. */
export interface RealFiles {
  /** A new backing id, or -errno. `writable`: the descriptor is open for writing. */
  openBacking(fd: number, writable: boolean): number
  closeBacking(id: number): void
  /** A new read-only descriptor of the file, or -errno. */
  reopen(fd: number): number
  /**
   * Whether the kernel may open a real file with O_TMPFILE, which it does for a handle that was
   * created with it. False for a FUSE filesystem: its server gets an open with that flag and may
   * refuse it (ENOTDIR: O_DIRECTORY is part of O_TMPFILE).
   */
  readonly opensUnnamed: boolean
  /** Whether the file can be opened with O_DIRECT. */
  hasDirectIo(fd: number): boolean
  /**
   * Whether any process may still write through a descriptor or mapping. Closes `fd`, which
   * `reopen` returned.
   */
  mayBeWritten(fd: number): boolean
}

/** struct fuse_backing_map {s32 fd; u32 flags; u64 padding} */
const map = Buffer.allocUnsafeSlow(16).fill(0)

/**
 * Why this process cannot use passthrough on this kernel. Undefined if it probably can; the answer
 * to INIT confirms that.
 *
 * @param fd /dev/fuse, not mounted yet. Such a connection refuses the ioctl with another error than
 *   a kernel that does not know the ioctl.
 */
export const passthroughRefusal = (fd: number): string | undefined => {
  if (!hasCap(CAP_SYS_ADMIN) || !inInitialNamespace()) {
    return 'it needs CAP_SYS_ADMIN in the initial user namespace'
  }
  map.fill(0)
  map.writeInt32LE(-1, 0)
  const r = ioctl(fd, DEV_IOC_BACKING_OPEN, map)
  return r === -E.ENOTTY || r === -E.EOPNOTSUPP
    ? 'the kernel has no CONFIG_FUSE_PASSTHROUGH (Linux 6.9)'
    : undefined
}

/**
 * The `stackDepth` of INIT. With 1, overlayfs can still be stacked on the mount. A FUSE filesystem
 * that uses passthrough itself counts as stacked: fs/fuse/backing.c answers ELOOP if the real
 * file's filesystem is as deep as `stackDepth`.
 */
export const stackDepthOver = (fsType: number): 1 | 2 =>
  fsType === OVERLAYFS_SUPER_MAGIC || fsType === FUSE_SUPER_MAGIC ? 2 : 1

/**
 * Whether passthrough of files of this filesystem needs an explicit request. On a FUSE filesystem,
 * each open is a request to its server even with passthrough. Also, two stacked filesystems with
 * passthrough leave no room for a third.
 */
export const prefersCache = (fsType: number): boolean => fsType === FUSE_SUPER_MAGIC

export class DeviceFiles implements RealFiles {
  readonly #fd: number
  readonly #log: Logger
  readonly opensUnnamed: boolean
  #warned = false

  /** @param upperType the type of the filesystem of the real files (statfs(2)), 0 if unknown */
  constructor(fd: number, log: Logger, upperType = 0) {
    this.#fd = fd
    this.#log = log
    this.opensUnnamed = upperType !== FUSE_SUPER_MAGIC
  }

  /**
   * The kernel opens the real file anew for every handle and takes only the path from the
   * descriptor. But it holds the descriptor's open file. If that is open for writing, the file
   * counts as written to: execve(2) fails with ETXTBSY, and leases fail. So a read-only descriptor
   * is passed.
   */
  openBacking(fd: number, writable: boolean): number {
    const reading = writable ? reopenForReading(fd) : -1
    const id = this.#openId(reading < 0 ? fd : reading)
    if (reading >= 0) close(reading)
    return id
  }

  /**
   * With the backing id, the kernel keeps this thread's credentials and uses them for all i/o. The
   * kernel still drops set-id bits that appear after the open: before a write, file_remove_privs()
   * sends a SETATTR request that carries the writer's credentials.
   */
  #openId(fd: number): number {
    map.writeInt32LE(fd, 0)
    map.fill(0, 4)
    const r = ioctl(this.#fd, DEV_IOC_BACKING_OPEN, map)
    if (r < 0 && !this.#warned) {
      this.#warned = true
      this.#log.warn({ errno: errnoName(r) }, 'the kernel refuses passthrough of a file')
    }
    return r
  }

  closeBacking(id: number): void {
    map.writeUInt32LE(id, 0)
    const r = ioctl(this.#fd, DEV_IOC_BACKING_CLOSE, map)
    if (r < 0) this.#log.error({ id, errno: errnoName(r) }, 'a backing id could not be closed')
  }

  hasDirectIo(fd: number): boolean {
    const r = reopenForReading(fd, O_DIRECT)
    if (r >= 0) close(r)
    return r !== -E.EINVAL
  }

  reopen(fd: number): number {
    return reopenForReading(fd)
  }

  /** True if the lease cannot tell. */
  mayBeWritten(fd: number): boolean {
    const r = isOpenForWriting(fd)
    close(fd)
    return r !== 0
  }
}

/**
 * Passthrough: whether it is possible here, backing ids (fs/fuse/backing.c), and who else writes.
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
import type { RealFiles } from '../session/io-mode.js'

/** struct fuse_backing_map {s32 fd; u32 flags; u64 padding} */
const map = Buffer.allocUnsafeSlow(16).fill(0)

/**
 * Why this process cannot have passthrough on this kernel; undefined where it probably can, which
 * the answer to INIT confirms.
 *
 * @param fd /dev/fuse, not mounted yet: the ioctl is then refused as such, unless it is unknown
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
 * The `stackDepth` of INIT: with 1, overlayfs can still be stacked on the mount. A FUSE file system
 * that passes its own files through is stacked, too (fs/fuse/backing.c answers ELOOP where the real
 * file lies as deep as that).
 */
export const stackDepthOver = (fsType: number): 1 | 2 =>
  fsType === OVERLAYFS_SUPER_MAGIC || fsType === FUSE_SUPER_MAGIC ? 2 : 1

/**
 * Whether files of this file system are only passed through on request. Of a FUSE file system each
 * open would be a request to its server all the same, and two that are passed through in a stack
 * leave no room for a third.
 */
export const prefersCache = (fsType: number): boolean => fsType === FUSE_SUPER_MAGIC

export class DeviceFiles implements RealFiles {
  readonly #fd: number
  readonly #log: Logger
  readonly opensUnnamed: boolean
  #warned = false

  /**
   * @param upperType the type of the file system that the real files are on (statfs(2)), 0 where
   *   that is not known
   */
  constructor(fd: number, log: Logger, upperType = 0) {
    this.#fd = fd
    this.#log = log
    this.opensUnnamed = upperType !== FUSE_SUPER_MAGIC
  }

  /**
   * The kernel opens the file anew for every handle, and only takes its place from the descriptor.
   * But it keeps that: one for writing would have the file count as written to (execve(2) fails,
   * leases too).
   */
  openBacking(fd: number, writable: boolean): number {
    const reading = writable ? reopenForReading(fd) : -1
    const id = this.#openId(reading < 0 ? fd : reading)
    if (reading >= 0) close(reading)
    return id
  }

  /**
   * With the id the kernel keeps this thread's credentials and does all i/o with them. Set-id bits
   * that appear after the open are dropped all the same: before a write it asks for that with a
   * SETATTR (file_remove_privs), which tells who writes.
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

  /** Where that cannot be told, it may. */
  mayBeWritten(fd: number): boolean {
    const r = isOpenForWriting(fd)
    close(fd)
    return r !== 0
  }
}

/**
 * mount(2) and umount2(2). Rare: strings are passed as they are.
 */

import * as c from './libc.js'
import { fail, rawAddress } from './libc.js'
import { E } from './errno.js'
import type { ByteString, Result } from './types.js'

export type { Result } from './types.js'

/** The kernel copies one page of mount data. */
const DATA_MAX = 4096

/**
 * mount(2) with MS_* flags. `source`, `target` and `fstype` are UTF-8 strings, `data` is the file
 * system's options as bytes; at most 4095 of them, else -E2BIG.
 */
export const mount = (
  source: string | null,
  target: string,
  fstype: string | null,
  flags: number,
  data: ByteString = '',
): Result => {
  if (data.length >= DATA_MAX) return -E.E2BIG
  // A whole page: the kernel reads that much.
  const page = Buffer.alloc(DATA_MAX)
  page.latin1Write(data, 0)
  return c.mount(source, target, fstype, flags, rawAddress(page)) < 0 ? fail() : 0
}

/** umount2(2) with MNT_DETACH, UMOUNT_NOFOLLOW. */
export const umount = (target: string, flags = 0): Result =>
  c.umount2(target, flags) < 0 ? fail() : 0

/**
 * umount2(2) on a thread of koffi's: unmounting a FUSE file system may wait for its server, and must
 * not block the thread which is to answer.
 */
export const umountAsync = (target: string, flags = 0): Promise<Result> =>
  new Promise((resolve, reject) => {
    c.umount2.async(target, flags, (err, r) => {
      if (err) reject(err)
      // koffi hands the other thread's errno over for the length of this callback.
      else resolve(r < 0 ? fail() : 0)
    })
  })

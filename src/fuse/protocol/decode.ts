/**
 * Decodes names and the structures that the union's operations take. Pure functions of a request's
 * bytes. The caller has checked that the fixed part of the body is complete.
 */

import type { ByteString, Caller, SetAttr } from '../../overlay/ops.js'
import { FATTR_FH, FATTR_LOCKOWNER } from './abi.js'
import type { Request } from './wire.js'

/** One path component, NUL-terminated, at `offset`. Undefined if it is not a valid name. */
export const decodeName = (req: Request, offset: number): ByteString | undefined => {
  const end = req.nul(offset)
  if (end <= offset) return undefined
  const name = req.text(offset, end)
  return name === '.' || name === '..' || name.includes('/') ? undefined : name
}

/** Any NUL-terminated string except the empty one: an attribute's name, a symlink's target. */
export const decodeText = (req: Request, offset: number): ByteString | undefined => {
  const end = req.nul(offset)
  return end <= offset ? undefined : req.text(offset, end)
}

/** The caller, from the header; `umask` from the body, if it has one. */
export const decodeCaller = (req: Request, out: Caller, umask: number): void => {
  out.uid = req.uid
  out.gid = req.gid
  out.pid = req.pid
  out.umask = umask & 0o777
}

/** Bits of `valid` that the union uses (SetAttrValid). */
const VALID = 0xfff & ~FATTR_LOCKOWNER

/** struct fuse_setattr_in */
export const decodeSetAttr = (req: Request, out: SetAttr): void => {
  out.valid = req.u32(0) & VALID
  out.fh = (out.valid & FATTR_FH) !== 0 ? req.u64(8) : 0
  out.size = req.off(16)
  // 24: lock_owner
  out.atimeSec = req.i64(32)
  out.mtimeSec = req.i64(40)
  // 48: ctime, which cannot be set
  out.atimeNsec = req.u32(56)
  out.mtimeNsec = req.u32(60)
  out.mode = req.u32(68) & 0o7777
  out.uid = req.u32(76)
  out.gid = req.u32(80)
}

/** The kernel's 32-bit device number, include/linux/kdev_t.h:new_decode_dev() */
export const devMajor = (dev: number): number => (dev & 0xfff00) >>> 8
export const devMinor = (dev: number): number => (dev & 0xff) | ((dev >>> 12) & 0xfff00)

/**
 * Handlers for attributes, extended attributes and inode flags. Part of the table in handlers.ts.
 */

import { ACL_ACCESS, ACL_DEFAULT } from '../../overlay/owner/acl.js'
import type { ByteString } from '../../overlay/ops.js'
import {
  FS_IOC_FSGETXATTR,
  FS_IOC_FSSETXATTR,
  FS_IOC_GETFLAGS,
  FS_IOC_SETFLAGS,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import * as abi from '../protocol/abi.js'
import { Opcode, OUT_HEADER_SIZE } from '../protocol/abi.js'
import { flagsOfFsx, FSX_SIZE, fsxOfFlags, otherFsx } from '../protocol/fsxattr.js'
import type { Handle } from './session.js'
import { countLinks, writeAttrOut, writeStatx } from '../protocol/encode.js'
import { decodeCaller, decodeSetAttr, decodeText } from '../protocol/decode.js'
import type { Session } from './session.js'
import type { Reply, Request } from '../protocol/wire.js'

const AT = OUT_HEADER_SIZE

/** The file handle of a GETATTR or STATX, or 0. */
const attrHandle = (req: Request): number => ((req.u32(0) & abi.GETATTR_FH) !== 0 ? req.u64(8) : 0)

const getattr: Handle = (s, req, rep) => {
  const r = s.ops.getattr(req.nodeid, attrHandle(req), s.attr)
  if (r < 0) return r
  countLinks(s.attr, s.tuning)
  return writeAttrOut(rep, AT, s.attr, s.attrs(req.nodeid))
}

const statx: Handle = (s, req, rep) => {
  const r = s.ops.getattr(req.nodeid, attrHandle(req), s.attr)
  if (r < 0) return r
  countLinks(s.attr, s.tuning)
  return writeStatx(rep, AT, s.attr, s.attrs(req.nodeid))
}

const setattr: Handle = (s, req, rep) => {
  decodeSetAttr(req, s.setAttr)
  decodeCaller(req, s.ops.requester, 0)
  const r = s.ops.setattr(req.nodeid, s.setAttr, s.attr)
  if (r < 0) return r
  countLinks(s.attr, s.tuning)
  return writeAttrOut(rep, AT, s.attr, s.attrs(req.nodeid))
}

const readlink: Handle = (s, req, rep) => s.ops.readlink(req.nodeid, rep.buf, AT)

const isAcl = (name: ByteString): boolean => name === ACL_ACCESS || name === ACL_DEFAULT

/**
 * The error for an attribute that the mount's options disable; 0: ask the union. After ENOSYS the
 * kernel sends no such request again and returns EOPNOTSUPP itself.
 */
const xattrRefusal = ({ tuning }: Session, name: ByteString): number => {
  if (!tuning.xattrs) return -E.ENOSYS
  return !tuning.acl && isAcl(name) ? -E.EOPNOTSUPP : 0
}

const setxattr: Handle = (s, req) => {
  const extended = s.negotiated?.setxattrExt === true
  const at = extended ? abi.SETXATTR_IN_SIZE : abi.SETXATTR_COMPAT_IN_SIZE
  const name = decodeText(req, at)
  if (name === undefined) return -E.EINVAL
  const refusal = xattrRefusal(s, name)
  if (refusal < 0) return refusal
  const size = req.u32(0)
  const start = at + name.length + 1
  if (start + size > req.bodyLength) return -E.EINVAL
  const killSgid = extended && (req.u32(8) & abi.SETXATTR_ACL_KILL_SGID) !== 0
  return s.ops.setxattr(req.nodeid, name, req.bytes(start, size), req.u32(4), killSgid)
}

/**
 * GETXATTR and LISTXATTR: the data itself, or its length in struct fuse_getxattr_out if room is 0.
 */
const xattrOut = (rep: Reply, room: number, r: number): number => {
  if (r < 0) return r
  if (room > 0) return r > room ? -E.ERANGE : r
  rep.u32(AT, r)
  rep.u32(AT + 4, 0)
  return abi.GETXATTR_OUT_SIZE
}

const getxattr: Handle = (s, req, rep) => {
  const name = decodeText(req, abi.GETXATTR_IN_SIZE)
  if (name === undefined) return -E.EINVAL
  const refusal = xattrRefusal(s, name)
  if (refusal < 0) return refusal
  const room = Math.min(req.u32(0), rep.capacity)
  return xattrOut(rep, room, s.ops.getxattr(req.nodeid, name, rep.buf, AT, room))
}

/** Removes the names of ACLs from a list in a reply. Returns the new length. */
const withoutAcls = (rep: Reply, r: number): number => {
  let end = AT
  for (let at = AT; at < AT + r;) {
    const next = rep.buf.indexOf(0, at) + 1
    if (!isAcl(rep.buf.latin1Slice(at, next - 1))) {
      rep.buf.copyWithin(end, at, next)
      end += next - at
    }
    at = next
  }
  return end - AT
}

const listxattr: Handle = (s, req, rep) => {
  if (!s.tuning.xattrs) return -E.ENOSYS
  const room = Math.min(req.u32(0), rep.capacity)
  decodeCaller(req, s.caller, 0)
  if (!s.tuning.acl) {
    const r = s.ops.listxattr(req.nodeid, rep.buf, AT, rep.capacity, s.caller)
    return xattrOut(rep, room, r < 0 ? r : withoutAcls(rep, r))
  }
  return xattrOut(rep, room, s.ops.listxattr(req.nodeid, rep.buf, AT, room, s.caller))
}

const removexattr: Handle = (s, req) => {
  const name = decodeText(req, 0)
  if (name === undefined) return -E.EINVAL
  const refusal = xattrRefusal(s, name)
  if (refusal < 0) return refusal
  decodeCaller(req, s.ops.requester, 0)
  return s.ops.removexattr(req.nodeid, name)
}

/**
 * struct fuse_ioctl_out before `size` bytes of data. fs/fuse/ioctl.c:fuse_priv_ioctl() expects
 * exactly as many bytes as its buffer has.
 */
const ioctlOut = (rep: Reply, size: number): number => {
  rep.zero(AT, AT + abi.IOCTL_OUT_SIZE)
  return abi.IOCTL_OUT_SIZE + size
}

/** Offsets of an ioctl's data in the reply's buffer and in the request's body. */
const DATA = AT + abi.IOCTL_OUT_SIZE
const IN_DATA = abi.IOCTL_IN_SIZE

const getFlags = (s: Session, req: Request, rep: Reply): number => {
  const room = req.u32(28)
  if (room !== 4 && room !== 8) return -E.EINVAL
  const flags = s.ops.getFlags(req.nodeid)
  if (flags < 0) return flags
  rep.u32(DATA, flags)
  rep.u32(DATA + 4, 0)
  return ioctlOut(rep, room)
}

const getFsx = (s: Session, req: Request, rep: Reply): number => {
  if (req.u32(28) < FSX_SIZE) return -E.EINVAL
  const flags = s.ops.getFlags(req.nodeid)
  if (flags < 0) return flags
  rep.zero(DATA, DATA + FSX_SIZE)
  rep.u32(DATA, fsxOfFlags(flags))
  return ioctlOut(rep, FSX_SIZE)
}

const setFlags = (s: Session, req: Request, rep: Reply, flags: number): number => {
  const r = s.ops.setFlags(req.nodeid, flags)
  return r < 0 ? r : ioctlOut(rep, 0)
}

/**
 * Sets the flags that have an FS_*_FL counterpart. The union does not support extent sizes and
 * project ids.
 */
const setFsx = (s: Session, req: Request, rep: Reply): number => {
  if (req.bodyLength < IN_DATA + FSX_SIZE) return -E.EINVAL
  if (otherFsx(req.u32(IN_DATA)) || req.u32(IN_DATA + 4) !== 0 || req.u32(IN_DATA + 12) !== 0) {
    return -E.EOPNOTSUPP
  }
  const now = s.ops.getFlags(req.nodeid)
  if (now < 0) return now
  return setFlags(s, req, rep, flagsOfFsx(req.u32(IN_DATA), now))
}

const ioctl: Handle = (s, req, rep) => {
  switch (req.u32(12)) {
    case FS_IOC_GETFLAGS:
      return getFlags(s, req, rep)
    case FS_IOC_SETFLAGS:
      if (req.bodyLength < IN_DATA + 4) return -E.EINVAL
      return setFlags(s, req, rep, req.u32(IN_DATA))
    case FS_IOC_FSGETXATTR:
      return getFsx(s, req, rep)
    case FS_IOC_FSSETXATTR:
      return setFsx(s, req, rep)
    default:
      return -E.ENOTTY
  }
}

/** Opcode, size of the fixed part of the body, handler. */
export const attrHandlers: readonly (readonly [number, number, Handle])[] = [
  [Opcode.GETATTR, abi.GETATTR_IN_SIZE, getattr],
  [Opcode.STATX, abi.STATX_IN_SIZE, statx],
  [Opcode.SETATTR, abi.SETATTR_IN_SIZE, setattr],
  [Opcode.READLINK, 0, readlink],
  [Opcode.SETXATTR, abi.SETXATTR_COMPAT_IN_SIZE, setxattr],
  [Opcode.GETXATTR, abi.GETXATTR_IN_SIZE, getxattr],
  [Opcode.LISTXATTR, abi.GETXATTR_IN_SIZE, listxattr],
  [Opcode.REMOVEXATTR, 0, removexattr],
  [Opcode.IOCTL, abi.IOCTL_IN_SIZE, ioctl],
]

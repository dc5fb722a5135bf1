/** Handlers for names: lookup, creation, removal, rename. Part of the table in handlers.ts. */

import { E } from '../../sys/errno.js'
import * as abi from '../protocol/abi.js'
import { Opcode, OUT_HEADER_SIZE } from '../protocol/abi.js'
import type { Handle } from './session.js'
import { countLinks, NEVER, writeEntry, writeOpen } from '../protocol/encode.js'
import { decodeCaller, decodeName, decodeText, devMajor, devMinor } from '../protocol/decode.js'
import type { Session } from './session.js'
import type { Reply } from '../protocol/wire.js'

const AT = OUT_HEADER_SIZE

/** Encodes `s.entry` after an operation; returns `r` if it is an error. */
const entryOut = (s: Session, rep: Reply, r: number): number => {
  if (r < 0) return r
  const { entry } = s
  countLinks(entry.attr, s.tuning)
  writeEntry(rep, AT, entry, s.names, entry.nodeId === 0 ? NEVER : s.attrs(entry.nodeId))
  return abi.ENTRY_OUT_SIZE
}

const lookup: Handle = (s, req, rep) => {
  const name = decodeName(req, 0)
  if (name === undefined) return -E.EINVAL
  return entryOut(s, rep, s.ops.lookup(req.nodeid, name, s.entry))
}

const mknod: Handle = (s, req, rep) => {
  const name = decodeName(req, abi.MKNOD_IN_SIZE)
  if (name === undefined) return -E.EINVAL
  const mode = req.u32(0) & 0xffff
  const dev = req.u32(4)
  decodeCaller(req, s.caller, req.u32(8))
  const { ops, caller, entry } = s
  const r = ops.mknod(caller, req.nodeid, name, mode, devMajor(dev), devMinor(dev), entry)
  return entryOut(s, rep, r)
}

const mkdir: Handle = (s, req, rep) => {
  const name = decodeName(req, abi.MKDIR_IN_SIZE)
  if (name === undefined) return -E.EINVAL
  decodeCaller(req, s.caller, req.u32(4))
  return entryOut(s, rep, s.ops.mkdir(s.caller, req.nodeid, name, req.u32(0) & 0o7777, s.entry))
}

const symlink: Handle = (s, req, rep) => {
  const name = decodeName(req, 0)
  if (name === undefined) return -E.EINVAL
  const target = decodeText(req, name.length + 1)
  if (target === undefined) return -E.EINVAL
  decodeCaller(req, s.caller, 0)
  return entryOut(s, rep, s.ops.symlink(s.caller, req.nodeid, name, target, s.entry))
}

const link: Handle = (s, req, rep) => {
  const name = decodeName(req, abi.LINK_IN_SIZE)
  if (name === undefined) return -E.EINVAL
  return entryOut(s, rep, s.ops.link(req.u64(0), req.nodeid, name, s.entry))
}

/** CREATE and TMPFILE: struct fuse_entry_out, then struct fuse_open_out. */
const createOut = (s: Session, rep: Reply, r: number, flags: number): number => {
  if (r < 0) return r
  if (s.ioModes === undefined) return -E.EIO
  const { nodeId } = s.entry
  const fopen = s.ioModes.open(nodeId, s.opened, flags, true)
  if (fopen < 0) {
    s.ops.release(s.opened.fh)
    s.ops.forget(nodeId, 1)
    return fopen
  }
  if (s.hasOwnPages(fopen, flags)) s.ops.mappable(s.opened.fh)
  writeEntry(rep, AT, s.entry, s.names, s.attrs(nodeId))
  writeOpen(rep, AT + abi.ENTRY_OUT_SIZE, s.opened.fh, fopen, s.ioModes.backingId)
  return abi.ENTRY_OUT_SIZE + abi.OPEN_OUT_SIZE
}

const create: Handle = (s, req, rep) => {
  const name = decodeName(req, abi.CREATE_IN_SIZE)
  if (name === undefined) return -E.EINVAL
  const flags = req.u32(0) & ~abi.FMODE_EXEC
  const mode = req.u32(4) & 0o7777
  decodeCaller(req, s.caller, req.u32(8))
  const r = s.ops.create(s.caller, req.nodeid, name, mode, flags, s.entry, s.opened)
  return createOut(s, rep, r, flags)
}

/** The name in the request is made up by the kernel ("#" and a number) and is ignored. */
const tmpfile: Handle = (s, req, rep) => {
  const flags = req.u32(0) & ~abi.FMODE_EXEC
  const mode = req.u32(4) & 0o7777
  decodeCaller(req, s.caller, req.u32(8))
  const r = s.ops.tmpfile(s.caller, req.nodeid, mode, flags, s.entry, s.opened)
  return createOut(s, rep, r, flags)
}

const unlink: Handle = (s, req) => {
  const name = decodeName(req, 0)
  return name === undefined ? -E.EINVAL : s.ops.unlink(req.nodeid, name)
}

const rmdir: Handle = (s, req) => {
  const name = decodeName(req, 0)
  return name === undefined ? -E.EINVAL : s.ops.rmdir(req.nodeid, name)
}

/** RENAME and RENAME2: the two names start at body offset `at`. */
const renameFrom = (at: number, hasFlags: boolean): Handle => {
  const rename: Handle = (s, req) => {
    const name = decodeName(req, at)
    if (name === undefined) return -E.EINVAL
    const newName = decodeName(req, at + name.length + 1)
    if (newName === undefined) return -E.EINVAL
    return s.ops.rename(req.nodeid, name, req.u64(0), newName, hasFlags ? req.u32(8) : 0)
  }
  return rename
}

/** Opcode, size of the fixed part of the body, handler. */
export const nameHandlers: readonly (readonly [number, number, Handle])[] = [
  [Opcode.LOOKUP, 0, lookup],
  [Opcode.MKNOD, abi.MKNOD_IN_SIZE, mknod],
  [Opcode.MKDIR, abi.MKDIR_IN_SIZE, mkdir],
  [Opcode.SYMLINK, 0, symlink],
  [Opcode.LINK, abi.LINK_IN_SIZE, link],
  [Opcode.CREATE, abi.CREATE_IN_SIZE, create],
  [Opcode.TMPFILE, abi.CREATE_IN_SIZE, tmpfile],
  [Opcode.UNLINK, 0, unlink],
  [Opcode.RMDIR, 0, rmdir],
  [Opcode.RENAME, abi.RENAME_IN_SIZE, renameFrom(abi.RENAME_IN_SIZE, false)],
  [Opcode.RENAME2, abi.RENAME2_IN_SIZE, renameFrom(abi.RENAME2_IN_SIZE, true)],
]

/** Handlers for open files and directories. Part of the table in handlers.ts. */

import { ofNode, type Fh } from '../../overlay/ops.js'
import { O_ACCMODE, O_RDONLY } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { isSlow } from '../../sys/slow.js'
import * as abi from '../protocol/abi.js'
import { Opcode, OUT_HEADER_SIZE } from '../protocol/abi.js'
import type { Handle } from './session.js'
import { countOut, writeOpen } from '../protocol/encode.js'
import { decodeCaller } from '../protocol/decode.js'
import type { Session } from './session.js'
import type { Reply, Request } from '../protocol/wire.js'

const AT = OUT_HEADER_SIZE
const MAX = Number.MAX_SAFE_INTEGER

/** The most bytes that one request transfers (the kernel's MAX_RW_COUNT). */
const MAX_COUNT = 0x7fff_f000

/**
 * The file handle of a request. Without OPEN requests it is 0, and the node itself stands for the
 * file.
 */
const fileOf = (s: Session, fh: number, node: number): Fh =>
  fh === 0 && s.negotiated?.noOpen === true ? ofNode(node) : fh

/** After ENOSYS the kernel sends neither OPEN nor RELEASE again. */
const open: Handle = (s, req, rep) => {
  if (s.ioModes === undefined) return -E.EIO
  if (s.negotiated?.noOpen === true) return -E.ENOSYS
  const flags = req.u32(0) & ~abi.FMODE_EXEC
  const { opened } = s
  const killPriv = (req.u32(4) & abi.OPEN_KILL_SUIDGID) !== 0
  if (killPriv) decodeCaller(req, s.ops.requester, 0)
  const r = s.ops.open(req.nodeid, flags, killPriv, opened)
  if (r < 0) return r
  const fopen = s.ioModes.open(req.nodeid, opened, flags, false)
  if (fopen < 0) {
    s.ops.release(opened.fh)
    return fopen
  }
  if (s.hasOwnPages(fopen, flags)) s.ops.mappable(opened.fh)
  const gives = fopen === abi.FOPEN_KEEP_CACHE && (flags & O_ACCMODE) === O_RDONLY
  if (gives && s.prefill?.push(req.nodeid, opened, s.ops) === false) {
    s.closed(req.nodeid, opened.fh)
    s.ops.markStale(req.nodeid)
    return -E.ESTALE
  }
  writeOpen(rep, AT, opened.fh, fopen, s.ioModes.backingId)
  return abi.OPEN_OUT_SIZE
}

const release: Handle = (s, req) => {
  s.closed(req.nodeid, req.u64(0))
  return 0
}

/** Reads directly into the reply's buffer. */
const read: Handle = (s, req, rep) => {
  const pos = req.off(8)
  const length = Math.min(req.u32(16), rep.capacity)
  const fh = fileOf(s, req.u64(0), req.nodeid)
  const { pipe } = s
  if (pipe !== undefined && pipe.accepts(length)) {
    const fd = s.ops.realFile(fh)
    // The final header, unless the file ends before `length`.
    rep.header(OUT_HEADER_SIZE + length, 0, req.uniqueLow, req.uniqueHigh)
    const n = fd < 0 || isSlow(fd) ? -1 : pipe.load(rep, fd, length, pos)
    if (n >= 0) return n
  }
  return s.ops.read(fh, rep.buf, AT, length, pos)
}

const write: Handle = (s, req, rep) => {
  const pos = req.off(8)
  const length = req.u32(16)
  if (length > req.bodyLength - abi.WRITE_IN_SIZE) return -E.EINVAL
  const killPriv = (req.u32(20) & abi.WRITE_KILL_SUIDGID) !== 0
  if (killPriv) decodeCaller(req, s.ops.requester, 0)
  const late = (req.u32(20) & abi.WRITE_CACHE) !== 0
  const from = abi.IN_HEADER_SIZE + abi.WRITE_IN_SIZE
  const fh = fileOf(s, req.u64(0), req.nodeid)
  const r = s.ops.write(fh, req.buf, from, length, pos, killPriv, late)
  if (r < 0) return r
  rep.u32(AT, r)
  rep.u32(AT + 4, 0)
  return abi.WRITE_OUT_SIZE
}

// If syncing is free, ENOSYS stops these requests. The kernel still writes back its own pages.
const fsync: Handle = (s, req) =>
  s.ops.syncIsFree
    ? -E.ENOSYS
    : s.ops.fsync(fileOf(s, req.u64(0), req.nodeid), (req.u32(8) & abi.FSYNC_FDATASYNC) !== 0)

const fsyncdir: Handle = (s, req) =>
  s.ops.syncIsFree
    ? -E.ENOSYS
    : s.ops.fsyncdir(req.nodeid, (req.u32(8) & abi.FSYNC_FDATASYNC) !== 0)

const fallocate: Handle = (s, req) => {
  const file = fileOf(s, req.u64(0), req.nodeid)
  return s.ops.fallocate(file, req.u32(24), req.off(8), req.off(16))
}

const lseek: Handle = (s, req, rep) => {
  const r = s.ops.lseek(fileOf(s, req.u64(0), req.nodeid), req.off(8), req.u32(16))
  if (r < 0) return Number(r)
  rep.ino(AT, r)
  return abi.LSEEK_OUT_SIZE
}

const copyRange = (s: Session, req: Request): number => {
  const offIn = req.off(8)
  const offOut = req.off(32)
  const length = Math.min(req.u64(40), MAX_COUNT)
  const from = fileOf(s, req.u64(0), req.nodeid)
  const to = fileOf(s, req.u64(24), req.u64(16))
  return s.ops.copyFileRange(from, offIn, to, offOut, length, req.u32(48))
}

const copyFileRange: Handle = (s, req, rep) => {
  const r = copyRange(s, req)
  return r < 0 ? r : countOut(req.opcode, rep, r)
}

/** Bytes of room in the kernel's buffer. */
const dirRoom = (req: Request, rep: Reply): number => Math.min(req.u32(16), rep.capacity)

/**
 * An error after some entries: the entries are returned, and the next request meets the error
 * again.
 */
const dirOut = (r: number, length: number): number => (r < 0 && length === 0 ? r : length)

const readdir: Handle = (s, req, rep) => {
  const cookie = req.u64(8)
  if (cookie > MAX) return -E.EINVAL
  s.dir.begin(AT, dirRoom(req, rep))
  const r = s.ops.readdir(req.nodeid, cookie, s.dir)
  return dirOut(r, s.dir.end - AT)
}

const readdirplus: Handle = (s, req, rep) => {
  const cookie = req.u64(8)
  if (cookie > MAX) return -E.EINVAL
  s.dirPlus.begin(AT, dirRoom(req, rep))
  const r = s.ops.readdirplus(req.nodeid, cookie, s.dirPlus)
  return dirOut(r, s.dirPlus.end - AT)
}

/** Opcode, size of the fixed part of the body, handler. */
export const dataHandlers: readonly (readonly [number, number, Handle])[] = [
  [Opcode.OPEN, abi.OPEN_IN_SIZE, open],
  [Opcode.RELEASE, abi.RELEASE_IN_SIZE, release],
  [Opcode.READ, abi.READ_IN_SIZE, read],
  [Opcode.WRITE, abi.WRITE_IN_SIZE, write],
  [Opcode.FSYNC, abi.FSYNC_IN_SIZE, fsync],
  [Opcode.FSYNCDIR, abi.FSYNC_IN_SIZE, fsyncdir],
  [Opcode.FALLOCATE, abi.FALLOCATE_IN_SIZE, fallocate],
  [Opcode.LSEEK, abi.LSEEK_IN_SIZE, lseek],
  [Opcode.COPY_FILE_RANGE, abi.COPY_FILE_RANGE_IN_SIZE, copyFileRange],
  [Opcode.COPY_FILE_RANGE_64, abi.COPY_FILE_RANGE_IN_SIZE, copyFileRange],
  [Opcode.READDIR, abi.READ_IN_SIZE, readdir],
  [Opcode.READDIRPLUS, abi.READ_IN_SIZE, readdirplus],
]

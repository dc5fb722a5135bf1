/**
 * The table of opcodes: the size of the fixed part of a request's body, and the handler. A handler
 * decodes the request, calls one operation of the union and encodes the reply. It returns the
 * number of bytes behind the reply's header, or -errno.
 *
 * After ENOSYS the kernel sends no such request again, and the handlers use it for that purpose. A
 * request that fails for any other lack of support gets EOPNOTSUPP.
 */

import { MountError } from '../../errors.js'
import { ROOT_ID } from '../../overlay/ops.js'
import { E } from '../../sys/errno.js'
import * as abi from '../protocol/abi.js'
import { Opcode, OUT_HEADER_SIZE } from '../protocol/abi.js'
import { dataHandlers } from './handlers-data.js'
import { attrHandlers } from './handlers-attr.js'
import { nameHandlers } from './handlers-names.js'
import { flagNames, negotiate, writeInit, writeInitMajor } from '../protocol/init.js'
import { writeOpen, writeStatfs } from '../protocol/encode.js'
import { NO_REPLY, type Handle, type Handler, type Session } from './session.js'

/** The offset of a reply's body in its buffer. */
const AT = OUT_HEADER_SIZE

const init: Handle = (s, req, rep) => {
  const outcome = negotiate(req, s.initConfig)
  if (outcome === 'again') return writeInitMajor(rep, AT)
  const kernel = `${req.u32(0)}.${req.u32(4)}`
  if (outcome === 'unsupported') {
    s.refused = new MountError(`the kernel speaks FUSE ${kernel}, at least 7.31 is needed`, {
      code: 'EPROTO',
    })
    return -E.EPROTO
  }
  const data = s.onInit(outcome)
  if (data instanceof MountError) {
    s.refused = data
    return -E.EPROTO
  }
  s.ioModes = data
  s.negotiated = outcome
  s.prefill?.negotiated(outcome.minor)
  const { flags, flags2 } = outcome.reply
  s.log.debug({ kernel, io: outcome.io, flags: flagNames(flags, flags2) }, 'negotiated')
  return writeInit(rep, AT, outcome.reply)
}

const forgetNode = (s: Session, node: number, count: number): void => {
  if (node === ROOT_ID) return
  s.ioModes?.forget(node)
  s.ops.forget(node, count)
}

const forget: Handle = (s, req) => {
  forgetNode(s, req.nodeid, req.u64(0))
  s.idleGc.forgot(1)
  return NO_REPLY
}

const batchForget: Handle = (s, req) => {
  const room = Math.floor((req.bodyLength - abi.BATCH_FORGET_IN_SIZE) / abi.FORGET_ONE_SIZE)
  const count = Math.min(req.u32(0), room)
  for (let i = 0; i < count; i++) {
    const at = abi.BATCH_FORGET_IN_SIZE + i * abi.FORGET_ONE_SIZE
    forgetNode(s, req.u64(at), req.u64(at + 8))
  }
  s.idleGc.forgot(count)
  return NO_REPLY
}

const statfs: Handle = (s, _req, rep) => {
  const r = s.ops.statfs(s.statfs)
  if (r < 0) return r
  writeStatfs(rep, AT, s.statfs)
  return abi.STATFS_OUT_SIZE
}

/**
 * All data is written already. Reading the device then fails with ENODEV, which ends the
 * connection.
 */
const destroy: Handle = () => 0

/**
 * INTERRUPT of a request that is not parked: its answer follows at once. connection.ts handles
 * parked requests.
 */
const interrupt: Handle = () => NO_REPLY

const never: Handle = () => -E.ENOSYS

/**
 * Positions in a listing are valid for every open of a directory, so directories need no OPENDIR
 * (FUSE_NO_OPENDIR_SUPPORT). But without OPENDIR the kernel caches the listing, which `strictAtime`
 * forbids.
 */
const openDir: Handle = (s, _req, rep) => {
  if (s.initConfig.strictAtime !== true) return -E.ENOSYS
  writeOpen(rep, AT, 0, 0, 0)
  return abi.OPEN_OUT_SIZE
}

/** Indexed by opcode. */
export const handlers: (Handler | undefined)[] = Array.from({ length: abi.OPCODE_COUNT })
const set = (opcode: number, size: number, run: Handle): void => {
  handlers[opcode] = { size, run }
}

set(Opcode.INIT, abi.INIT_COMPAT_IN_SIZE, init)
set(Opcode.DESTROY, 0, destroy)
set(Opcode.FORGET, abi.FORGET_IN_SIZE, forget)
set(Opcode.BATCH_FORGET, abi.BATCH_FORGET_IN_SIZE, batchForget)
set(Opcode.INTERRUPT, abi.INTERRUPT_IN_SIZE, interrupt)
set(Opcode.STATFS, 0, statfs)
set(Opcode.SYNCFS, 0, s => s.ops.syncfs())
// No data waits for a close.
set(Opcode.FLUSH, 0, never)
set(Opcode.OPENDIR, abi.OPEN_IN_SIZE, openDir)
set(Opcode.RELEASEDIR, abi.RELEASE_IN_SIZE, s =>
  s.initConfig.strictAtime === true ? 0 : -E.ENOSYS,
)
// The kernel checks permissions itself (default_permissions).
set(Opcode.ACCESS, 0, never)
// Without FUSE_POSIX_LOCKS the kernel manages locks itself.
set(Opcode.GETLK, 0, never)
set(Opcode.SETLK, 0, never)
set(Opcode.SETLKW, 0, never)
// Regular files are always ready. The union has no block device. DAX is a feature of virtiofs.
set(Opcode.POLL, 0, never)
set(Opcode.BMAP, 0, never)
set(Opcode.SETUPMAPPING, 0, never)
set(Opcode.REMOVEMAPPING, 0, never)
for (const [opcode, size, run] of [...nameHandlers, ...attrHandlers, ...dataHandlers]) {
  set(opcode, size, run)
}

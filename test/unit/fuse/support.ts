/** A session on a recording union, in the state after INIT. */

import { handlers } from '../../../src/fuse/session/handlers.js'
import { silentLogger, type Logger } from '../../../src/log.js'
import type { RealFiles } from '../../../src/fuse/device/backing.js'
import { IoModes } from '../../../src/fuse/session/io-mode.js'
import type { InitConfig, IoMode } from '../../../src/fuse/protocol/init.js'
import { Session } from '../../../src/fuse/session/session.js'
import type { Prefill } from '../../../src/fuse/device/prefill.js'
import { defaultTuning, type Tuning } from '../../../src/config/tuning.js'
import { Reply, Request } from '../../../src/fuse/protocol/wire.js'
import { join, OP, RecordingOps, request, u32, zeros } from '../../helpers/frames.js'

/** Every flag of 7.45 that the kernel may offer, as low and high word. */
export const ALL_FLAGS = 0x7fff_ffff
export const ALL_FLAGS2 = 0x7ff

/** struct fuse_init_in; without flags2 up to 7.35. */
export const initRequest = (
  minor: number,
  flags = ALL_FLAGS,
  flags2 = ALL_FLAGS2,
  major = 7,
): Buffer =>
  request(
    OP.INIT,
    join(
      u32(major), // major
      u32(minor), // minor
      u32(131072), // max_readahead
      u32(flags), // flags
      ...(minor >= 36 ? [u32(flags2), zeros(44)] : []), // flags2, unused[11]
    ),
    { nodeid: 0 },
  )

export interface Log extends Logger {
  readonly lines: [level: string, message: string, fields: Record<string, unknown>][]
}

export const recordingLog = (debug = false): Log => {
  const lines: Log['lines'] = []
  const method = (level: string) => (fields: Record<string, unknown>, message: string) =>
    void lines.push([level, message, fields])
  return {
    lines,
    debug: debug ? method('debug') : () => {},
    info: method('info'),
    warn: method('warn'),
    error: method('error'),
    isLevelEnabled: level => debug || level !== 'debug',
  }
}

export class FakeFiles implements RealFiles {
  next = 1
  opensUnnamed = true
  readonly log: string[] = []
  readonly probes: string[] = []
  /** The `writable` argument of the last `openBacking`. */
  lastWritable: boolean | undefined
  /** The result of `mayBeWritten`. */
  written = false
  openBacking(fd: number, writable: boolean): number {
    this.log.push(`open ${fd}`)
    this.lastWritable = writable
    return this.next > 0 ? this.next++ : this.next
  }
  closeBacking(id: number): void {
    this.log.push(`close ${id}`)
  }
  direct = true
  hasDirectIo(): boolean {
    return this.direct
  }
  reopen(fd: number): number {
    this.probes.push(`reopen ${fd}`)
    return fd + 1000
  }
  mayBeWritten(fd: number): boolean {
    this.probes.push(`written ${fd}?`)
    return this.written
  }
}

export interface Rig {
  ops: RecordingOps
  session: Session
  backing: FakeFiles
  /** Nodes that `attrChanged` was called for. */
  changed: number[]
  /**
   * Handles a request; returns the reply's bytes, or the return value of `handle` if there is no
   * reply.
   */
  send: (bytes: Buffer) => Buffer | number
}

export const rig = (
  options: {
    io?: IoMode
    writeback?: boolean
    minor?: number
    flags?: number
    log?: Logger
    timeout?: number
    tuning?: Partial<Tuning>
    prefill?: Prefill
    init?: boolean
  } = {},
): Rig => {
  const ops = new RecordingOps()
  const backing = new FakeFiles()
  const changed: number[] = []
  const io = options.io ?? 'passthrough'
  const initConfig: InitConfig = {
    io,
    writeback: options.writeback ?? io === 'cached',
    stackDepth: 1,
  }
  const session = new Session({
    handlers,
    ops,
    reply: new Reply(64 * 1024),
    log: options.log ?? silentLogger,
    initConfig,
    timeout: options.timeout ?? 1000,
    tuning: { ...defaultTuning, ...options.tuning },
    ...(options.prefill === undefined ? {} : { prefill: options.prefill }),
    onInit: negotiated =>
      new IoModes(negotiated.io, backing, {
        attrChanged: node => void changed.push(node),
        dropPages: () => null,
        forgetNodes: () => null,
      }),
  })
  const send = (bytes: Buffer): Buffer | number => {
    const req = load(bytes)
    const n = session.handle(req)
    return n > 0 ? Buffer.from(session.reply.buf.subarray(0, n)) : n
  }
  if (options.init !== false) send(initRequest(options.minor ?? 45, options.flags))
  return { ops, session, backing, changed, send }
}

/** A request as read from the device, with garbage behind its end. */
export const load = (bytes: Buffer): Request => {
  const req = new Request(bytes.length + 64)
  req.buf.fill(0xee)
  bytes.copy(req.buf)
  req.length = bytes.length
  return req
}

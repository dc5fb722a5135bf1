/**
 * One union in its thread: opens the layers, mounts, has the loop serve it, and closes it. A
 * failure ends only this union.
 */

import { handlers } from '../fuse/session/handlers.js'
import { MountError } from '../errors.js'
import type { Logger } from '../log.js'
import type { ByteString, Ops } from '../overlay/ops.js'
import type { UnionOptions } from '../overlay/options.js'
import { openUnion, type Overlay } from '../overlay/overlay.js'
import type { Answer } from '../overlay/namei/which.js'
import { MS_RDONLY, O_DIRECTORY, O_PATH } from '../sys/constants.js'
import { openPath, StatFs, statfs } from '../sys/at.js'
import { close } from '../sys/io.js'
import { isStrict } from '../sys/mount.js'
import { mayReadAll } from '../sys/proc.js'
import { NOTIFY_PRUNE_SINCE, opcodeName } from '../fuse/protocol/abi.js'
import {
  DeviceFiles,
  passthroughRefusal,
  prefersCache,
  stackDepthOver,
} from '../fuse/device/backing.js'
import type { Weighed } from './heap-balance.js'
import { tuneBdi } from '../fuse/device/bdi.js'
import { Connection, type End } from '../fuse/session/connection.js'
import { IoModes } from '../fuse/session/io-mode.js'
import type { InitConfig } from '../fuse/protocol/init.js'
import type { Loop } from '../fuse/device/loop.js'
import {
  plainError,
  remoteLogger,
  reviveError,
  type FromWorker,
  type ServeOptions,
  type ToWorker,
} from './messages.js'
import type { MountRequest } from '../fuse/mount/request.js'
import { detach, mountDevice, mountedDevice, openDevice } from '../fuse/mount/mount.js'
import { DeviceNotifier } from '../fuse/protocol/notify.js'
import type { Pipe } from '../fuse/device/pipe.js'
import { Session } from '../fuse/session/session.js'
import { ReplyPipe } from '../fuse/device/splice-read.js'
import { Prefill } from '../fuse/device/prefill.js'
import type { Reply, Request } from '../fuse/protocol/wire.js'

const YEAR = 365 * 24 * 3600

/** Shared by all unions of a thread, which use them in turn. */
export interface ThreadParts {
  loop: Loop
  request: Request
  reply: Reply
  /** For the data of large READs. */
  pipe: Pipe
}

const pathType = (path: string): number => {
  const fd = openPath(path, O_PATH | O_DIRECTORY)
  if (fd < 0) return 0
  const out = new StatFs()
  const r = statfs(fd, out)
  close(fd)
  return r < 0 ? 0 : out.type
}

const initConfigFor = (
  options: ServeOptions,
  fd: number,
  upperType: number,
  log: Logger,
): InitConfig => {
  const { union, tuning } = options
  const io = tuning.noOpen ? 'cached' : options.io
  const refusal = io === 'cached' ? undefined : passthroughRefusal(fd)
  if (io === 'passthrough' && refusal !== undefined) {
    throw new MountError(`io=passthrough: ${refusal}`, { option: 'io', code: 'EPERM' })
  }
  if (refusal !== undefined) log.debug({ refusal }, 'no passthrough')
  const cached =
    io === 'cached' || refusal !== undefined || (io === 'auto' && prefersCache(upperType))
  const harmless = !isWritable(union) && mayReadAll()
  return {
    io: cached ? 'cached' : 'passthrough',
    writeback: cached && tuning.writeback && isWritable(union),
    stackDepth: stackDepthOver(upperType),
    acl: tuning.acl && tuning.xattrs,
    maxWrite: tuning.maxWrite,
    noOpen: cached && (tuning.noOpen || harmless),
    strictAtime: isWritable(union) && isStrict(options.mountFlags),
  }
}

/**
 * Without an upper layer the mount is read-only: the kernel answers EROFS itself, in the order of
 * its own checks.
 */
const isWritable = (union: UnionOptions): boolean => union.upper !== undefined && !union.readOnly

export class ServedUnion implements Weighed {
  readonly #options: ServeOptions
  readonly #parts: ThreadParts
  readonly #send: (message: FromWorker) => void
  readonly #log: Logger
  readonly #notifier: DeviceNotifier
  readonly #request: MountRequest
  /** The connection's descriptor, or -1. */
  #fd = -1
  #ops: Overlay | undefined
  #initConfig: InitConfig | undefined
  #upperType = 0
  /** The mounted device, as major:minor. */
  #device: string | undefined
  #session: Session | undefined
  #connection: Connection | undefined
  #hasEnded = false

  constructor(options: ServeOptions, parts: ThreadParts, send: (message: FromWorker) => void) {
    this.#options = options
    this.#parts = parts
    this.#send = send
    this.#log = remoteLogger(options.logLevel, send)
    this.#notifier = new DeviceNotifier(this.#log)
    this.#request = {
      mountpoint: options.mountpoint,
      fsname: options.fsname,
      subtype: options.subtype,
      allowOther: options.allowOther,
      flags: options.mountFlags | (isWritable(options.union) ? 0 : MS_RDONLY),
    }
  }

  get nodes(): number {
    return this.#ops?.nodes ?? 0
  }

  get full(): boolean {
    return this.#ops?.full === true
  }
  set full(value) {
    if (this.#ops !== undefined) this.#ops.full = value
  }

  forgetUnused(): void {
    this.#log.debug(
      { nodes: this.nodes },
      'little memory is left: the kernel is asked to forget nodes',
    )
    this.#ops?.forgetUnused()
  }

  /** Opens the layers and mounts, or sends a request to mount. The outcome goes to `send`. */
  open(): void {
    this.#closeOnError(() => {
      this.#openLayers()
      if (this.#options.way === 'mount') {
        mountDevice(this.#fd, this.#request)
        this.#mounted()
      } else {
        // fusermount3 runs in the main thread, because only an event loop can wait for its end.
        this.#send({ type: 'mount', request: this.#request })
      }
    })
  }

  receive(message: Exclude<ToWorker, { type: 'serve' }>): void {
    if (this.#hasEnded) {
      if (message.type === 'device' && 'fd' in message) close(message.fd)
      return
    }
    this.#closeOnError(() => this.#handle(message))
  }

  #handle(message: Exclude<ToWorker, { type: 'serve' }>): void {
    switch (message.type) {
      case 'stop':
        if (this.#connection === undefined) this.#close('stopped')
        else this.#parts.loop.end(this.#connection)
        break
      case 'stats':
        this.#send({ type: 'stats', id: message.id, stats: this.#stats() })
        break
      case 'explain':
        this.#send({ type: 'explained', id: message.id, answer: this.#explain(message.names) })
        break
      case 'device':
        if ('error' in message) throw reviveError(message.error)
        this.#fd = message.fd
        this.#mounted()
        break
    }
  }

  #closeOnError(step: () => void): void {
    try {
      step()
    } catch (error) {
      this.#close(error instanceof Error ? error : new Error(String(error)))
    }
  }

  #openLayers(): void {
    const options = this.#options
    if (options.way === 'mount') this.#fd = openDevice()
    const { upper } = options.union
    // Read before mounting: the mount may hide the upper layer, and then this thread would send
    // itself a request.
    this.#upperType = upper === undefined ? 0 : pathType(upper)
    const initConfig = initConfigFor(options, this.#fd, this.#upperType, this.#log)
    const { writeback, noOpen = false } = initConfig
    const union = openUnion(options.union, {
      log: this.#log,
      notifier: this.#notifier,
      writeback,
      passthrough: initConfig.io === 'passthrough',
      noOpen,
      mountFlags: options.mountFlags,
      checked: true,
    })
    this.#ops = union
    initConfig.writeback = union.writeback
    this.#initConfig = initConfig
  }

  #mounted(): void {
    this.#device = mountedDevice(this.#options.mountpoint)
    this.#notifier.attach(this.#fd)
    this.#send({ type: 'mounted', deviceFd: this.#fd, device: this.#device })
    this.#serve(this.#ops!, this.#initConfig!)
  }

  #serve(ops: Ops, initConfig: InitConfig): void {
    const { loop, request, reply, pipe } = this.#parts
    const log = this.#log
    const fd = this.#fd
    const options = this.#options
    const session = new Session({
      handlers,
      ops,
      pipe: new ReplyPipe(pipe),
      prefill: new Prefill(fd, log),
      reply,
      log,
      initConfig,
      timeout: options.timeout ?? YEAR,
      tuning: options.tuning,
      idleGc: loop.idleGc,
      onInit: ({ io, noOpen, minor }) => {
        this.#notifier.prunes = minor >= NOTIFY_PRUNE_SINCE
        if (noOpen !== (initConfig.noOpen === true))
          return new MountError('noopen: the kernel does not offer it', { option: 'noopen' })
        if (io !== options.io && options.io !== 'auto')
          return new MountError(`io=${options.io}: the kernel does not offer it`, { option: 'io' })
        const real = new DeviceFiles(fd, log, this.#upperType)
        return new IoModes(io, real, this.#notifier, fh => ops.realFile(fh))
      },
    })
    this.#session = session
    this.#connection = new Connection({
      fd,
      session,
      request,
      log,
      onReady: () => {
        if (this.#device !== undefined) tuneBdi(this.#device, log) // after INIT, which resets the readahead
        this.#send({ type: 'ready', io: session.negotiated?.io ?? 'cached' })
      },
      onEnd: end => {
        if (end === 'aborted') log.warn({}, 'the connection to the kernel was aborted')
        this.#close(end)
      },
    })
    loop.add(this.#connection)
  }

  /** Closes everything and reports the end. */
  #close(end: End): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    // The connection is closed first: the kernel then fails requests that wait for an answer,
    // including the server's own unmount, and releases backing files. The layers are closed next.
    // umount(8) does not wait for this thread, and its caller may want to unmount the layers'
    // filesystem at once.
    if (this.#fd >= 0) close(this.#fd)
    this.#session?.ioModes?.close()
    if (end !== 'unmounted') detach(this.#options.mountpoint, this.#device)
    let error = end instanceof Error ? end : undefined
    try {
      this.#ops?.close()
    } catch (fault) {
      error ??= fault instanceof Error ? fault : new Error(String(fault))
    }
    this.#send({ type: 'closed', ...(error === undefined ? {} : { error: plainError(error) }) })
  }

  /** An error here must not end the union. */
  #explain(names: readonly ByteString[]): Answer {
    try {
      return this.#ops?.explain(names) ?? { error: 'the union is not open yet' }
    } catch (error) {
      this.#log.error({ err: error }, 'a path could not be explained')
      return { error: 'a fault of the server' }
    }
  }

  #stats(): Record<string, number> {
    const session = this.#session
    const stats: Record<string, number> = { requests: 0, errors: session?.errors ?? 0 }
    session?.counts.forEach((count, opcode) => {
      if (count === 0) return
      stats['requests']! += count
      stats[`op.${opcodeName(opcode)}`] = count
      const failures = session.failures[opcode] ?? 0
      if (failures > 0) stats[`error.${opcodeName(opcode)}`] = failures
    })
    Object.assign(stats, this.#ops?.counts(), this.#ops?.copied())
    stats['parked'] = this.#connection?.parkedCount ?? 0
    stats['io.nodes'] = session?.ioModes?.nodeCount ?? 0
    stats['io.handles'] = session?.ioModes?.handleCount ?? 0
    stats['io.spliced'] = session?.pipe?.sent ?? 0
    stats['io.prefilled'] = session?.prefill?.count ?? 0
    return stats
  }
}

/**
 * The union's own thread: makes the union, mounts it, and serves it until it is unmounted. Its event
 * loop never turns while it serves; messages for it are fetched when its wake-up descriptor says so.
 */

import { parentPort, receiveMessageOnPort } from 'node:worker_threads'
import { MountError } from '../errors.js'
import { silentLogger, type Logger } from '../log.js'
import type { NodeId, Ops } from '../overlay/ops.js'
import type { UnionOptions } from '../overlay/options.js'
import { openUnion } from '../overlay/overlay.js'
import { MS_RDONLY, O_DIRECTORY, O_PATH } from '../sys/constants.js'
import { openPath, StatFs, statfs } from '../sys/at.js'
import { close, dup } from '../sys/io.js'
import { errnoName } from '../sys/errno.js'
import { mayReadAll } from '../sys/proc.js'
import { opcodeName } from './abi.js'
import { DeviceFiles, passthroughRefusal, stackDepthOver } from './backing.js'
import { Bell } from './bell.js'
import { tuneBdi } from './bdi.js'
import { DataMode } from './data-mode.js'
import { Device, REPLY_SIZE, type End } from './device.js'
import type { InitWish } from './init.js'
import {
  plainError,
  remoteLogger,
  reviveError,
  type FromWorker,
  type ServeOptions,
  type ToWorker,
} from './messages.js'
import {
  blockingDevice,
  detach,
  mountDevice,
  mountedDevice,
  openDevice,
  type MountRequest,
} from './mount.js'
import { DeviceNotifier } from './notify.js'
import { compileAsUsual } from './rehearsal/engine.js'
import { Rehearsal } from './rehearsal/rehearsal.js'
import { Session } from './session.js'
import { ReplyPipe } from './splice.js'
import { PageStore } from './store.js'
import { Reply } from './wire.js'

const YEAR = 365 * 24 * 3600

const port = parentPort
const send = (message: FromWorker): void => port?.postMessage(message)

const pathType = (path: string): number => {
  const fd = openPath(path, O_PATH | O_DIRECTORY)
  if (fd < 0) return 0
  const out = new StatFs()
  const r = statfs(fd, out)
  close(fd)
  return r < 0 ? 0 : out.type
}

const wishFor = (options: ServeOptions, fd: number, log: Logger): InitWish => {
  const { union, tuning } = options
  const io = tuning.noOpen ? 'cached' : options.io
  const refusal = io === 'cached' ? undefined : passthroughRefusal(fd)
  if (io === 'passthrough' && refusal !== undefined) {
    throw new MountError(`io=passthrough: ${refusal}`, { option: 'io', code: 'EPERM' })
  }
  if (refusal !== undefined) log.debug({ refusal }, 'no passthrough')
  const cached = io === 'cached' || refusal !== undefined
  const harmless = !isWritable(union) && mayReadAll()
  return {
    io: cached ? 'cached' : 'passthrough',
    writeback: cached && tuning.writeback && isWritable(union),
    stackDepth: union.upper === undefined ? 1 : stackDepthOver(pathType(union.upper)),
    acl: tuning.acl && tuning.xattrs,
    maxWrite: tuning.maxWrite,
    noOpen: cached && (tuning.noOpen || harmless),
  }
}

const statsOf = (session: Session, device: Device): Record<string, number> => {
  const stats: Record<string, number> = { requests: 0, errors: session.errors }
  session.counts.forEach((count, opcode) => {
    if (count === 0) return
    stats['requests']! += count
    stats[`op.${opcodeName(opcode)}`] = count
  })
  stats['parked'] = device.parkedCount
  stats['io.nodes'] = session.data?.nodeCount ?? 0
  stats['io.handles'] = session.data?.handleCount ?? 0
  stats['io.spliced'] = session.pipe?.sent ?? 0
  stats['io.taken'] = device.intake.taken
  stats['io.stored'] = session.store?.stored ?? 0
  return stats
}

const serve = (options: ServeOptions, ops: Ops, fd: number, setup: Setup): End => {
  const { log, wish, notifier, bell, blockingFd } = setup
  const pipe = new ReplyPipe()
  const files = new DeviceFiles(fd, silentLogger)
  let rehearsal: Rehearsal | undefined
  const session = new Session({
    ops,
    pipe,
    store: new PageStore(fd, log),
    reply: new Reply(REPLY_SIZE),
    log,
    wish,
    timeout: options.timeout ?? YEAR,
    tuning: options.tuning,
    // Practice has some dozens open.
    makeRoom: () => ops.makeRoom() || rehearsal?.close() === true,
    onInit: ({ io, noOpen }) => {
      if (noOpen !== (wish.noOpen === true))
        return new MountError('noopen: the kernel does not offer it', { option: 'noopen' })
      if (io !== options.io && options.io !== 'auto')
        return new MountError(`io=${options.io}: the kernel does not offer it`, { option: 'io' })
      return new DataMode(io, new DeviceFiles(fd, log), notifier, fh => ops.realFile(fh))
    },
  })
  const onWake = (): boolean => {
    for (;;) {
      const received = port === null ? undefined : receiveMessageOnPort(port)
      if (received === undefined) return false
      const message = received.message as ToWorker
      if (message.type === 'stop') return true
      if (message.type !== 'stats') continue
      send({ type: 'stats', id: message.id, stats: statsOf(session, device) })
    }
  }
  const onReady = (): void => {
    if (setup.device !== undefined) tuneBdi(setup.device, log) // INIT would have set it back
    send({ type: 'ready', io: session.negotiated?.io ?? 'cached' })
  }
  const practise = (): boolean => {
    try {
      rehearsal ??= new Rehearsal({ wish, tuning: options.tuning, log, files })
      return rehearsal.step()
    } catch (error) {
      // It is served without practice, then.
      log.debug({ error: String(error) }, 'no rehearsal')
      return false
    }
  }
  const onIdle = (): boolean => {
    if (practise()) return true
    session.tidy.littered()
    ops.startThreads()
    return false
  }
  const blocking = {
    fd: blockingFd,
    hang: (node: NodeId) => bell.hang(fd, node),
    takeDown: () => bell.takeDown(),
    later: (ms: number) => send({ type: 'later', ms }),
  }
  const device = new Device({
    fd,
    blocking: blockingFd < 0 ? undefined : blocking,
    session,
    log,
    onWake,
    onReady,
    onIdle,
  })
  try {
    return device.run()
  } finally {
    rehearsal?.close()
    pipe.close()
    device.intake.close()
  }
}

interface Setup {
  log: Logger
  wish: InitWish
  notifier: DeviceNotifier
  bell: Bell
  /** See `blockingDevice`. */
  blockingFd: number
  /** What the mount is, as major:minor. */
  device: string | undefined
}

/** Without an upper layer the kernel itself answers EROFS, in the order of its own checks. */
const isWritable = (union: UnionOptions): boolean => union.upper !== undefined && !union.readOnly

const cell = new Int32Array(new SharedArrayBuffer(4))
const POLL_MS = 2

/** Has the main thread mount by fusermount3, whose end only a turning loop can wait for. The connection. */
const mountByMain = (request: MountRequest): number => {
  send({ type: 'mount', request })
  for (;;) {
    const received = port === null ? undefined : receiveMessageOnPort(port)
    const message = received?.message as ToWorker | undefined
    if (message?.type === 'device') {
      if ('error' in message) throw reviveError(message.error)
      return message.fd
    }
    Atomics.wait(cell, 0, 0, POLL_MS)
  }
}

/** Everything from opening the device to closing it. Throws after cleaning up. */
const run = (options: ServeOptions): void => {
  const log = remoteLogger(options.logLevel, send)
  let fd = options.way === 'mount' ? openDevice() : -1
  let blockingFd = -1
  const bell = new Bell()
  let ops: Ops | undefined
  let mounted: string | undefined
  let end: End | undefined
  try {
    const wish = wishFor(options, fd, log)
    const notifier = new DeviceNotifier(log)
    const { writeback, noOpen = false } = wish
    const passthrough = wish.io === 'passthrough'
    const deps = { log, notifier, writeback, passthrough, noOpen, checked: true } as const
    ops = openUnion(options.union, deps)
    const request: MountRequest = {
      mountpoint: options.mountpoint,
      fsname: options.fsname,
      subtype: options.subtype,
      allowOther: options.allowOther,
      flags: options.mountFlags | (isWritable(options.union) ? 0 : MS_RDONLY),
    }
    if (options.way === 'mount') mountDevice(fd, request)
    else fd = mountByMain(request)
    mounted = mountedDevice(options.mountpoint)
    notifier.attach(fd)
    blockingFd = blockingDevice(fd)
    if (blockingFd < 0) log.debug({ errno: errnoName(blockingFd) }, 'no second descriptor')
    send({
      type: 'mounted',
      deviceFds: [fd, blockingFd].filter(one => one >= 0),
      device: mounted,
      controlFd: dup(ops.wakeFd),
      bell: bell.cells,
    })
    end = serve(options, ops, fd, { log, wish, notifier, bell, blockingFd, device: mounted })
    if (end === 'aborted') log.warn({}, 'the connection to the kernel was aborted')
  } finally {
    // First the connection: whoever waits for an answer, also the unmounting here, is let go.
    bell.takeDownSoon()
    if (blockingFd >= 0) close(blockingFd)
    if (fd >= 0) close(fd)
    if (end !== 'unmounted') detach(options.mountpoint, mounted)
    ops?.close()
  }
}

/** Serves until the mount has ended; the main thread is told how. */
export const serveUnion = (options: ServeOptions): void => {
  let failure: unknown
  compileAsUsual(true)
  try {
    run(options)
  } catch (error) {
    failure = error
  }
  send(failure === undefined ? { type: 'closed' } : { type: 'closed', error: plainError(failure) })
}

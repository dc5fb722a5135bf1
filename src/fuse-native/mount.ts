/**
 * A union mounted through the package. It runs in the main thread of a process of its own
 * (process.ts) until the connection to the kernel ends.
 */

import { readdirSync, readlinkSync } from 'node:fs'
import { MountError } from '../errors.js'
import type { ServeOptions } from '../server/messages.js'
import { detach, mountedDevice } from '../fuse/mount/mount.js'
import type { Logger } from '../log.js'
import { openUnion, type Overlay } from '../overlay/overlay.js'
import type { Notifier } from '../overlay/ops.js'
import { MS_RDONLY } from '../sys/constants.js'
import { E, errnoName } from '../sys/errno.js'
import { close, dup, watch2 } from '../sys/io.js'
import { makeFuse } from './binding.js'
import { LIMITS } from './limits.js'
import { libfuseOptions } from './options.js'
import { loadPackage } from './package.js'
import { Session } from './session.js'

/** The package cannot send notifications. So nothing is cached that would need one. */
const noNotifier: Notifier = {
  attrChanged: () => {},
  dropPages: () => null,
  forgetNodes: () => null,
}

/** All descriptors of /dev/fuse: the package does not tell which one it has opened. */
const devices = (): Set<number> => {
  const found = new Set<number>()
  for (const name of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${name}`) === '/dev/fuse') found.add(Number(name))
    } catch {
      // closed meanwhile
    }
  }
  return found
}

export class NativeMount {
  /** The mount's device, as major:minor. */
  readonly device: string | undefined
  readonly #mountpoint: string
  readonly #session: Session
  readonly #ops: Overlay
  readonly #log: Logger
  /** A copy of the connection's descriptor, because libfuse closes its own. */
  readonly #connection: number

  constructor(
    options: ServeOptions,
    session: Session,
    ops: Overlay,
    connection: number,
    log: Logger,
  ) {
    this.#mountpoint = options.mountpoint
    this.#session = session
    this.#ops = ops
    this.#connection = connection
    this.#log = log
    this.device = mountedDevice(options.mountpoint)
  }

  stats(): Record<string, number> {
    return { ...this.#session.stats(), ...this.#ops.counts(), ...this.#ops.copied() }
  }

  /** Serves until the mount ends, then closes every layer. */
  async run(): Promise<void> {
    for (;;) {
      const r = await watch2(this.#connection, this.#ops.wakeFd)
      if (r < 0) throw new Error(`waiting for /dev/fuse failed: ${errnoName(r)}`)
      if ((r & 2) !== 0) this.#ops.runCallbacks()
      if ((r & 1) !== 0) break
    }
    this.#session.close()
    if (this.device !== undefined && mountedDevice(this.#mountpoint) === this.device)
      this.#log.warn({}, 'the connection to the kernel was aborted')
    detach(this.#mountpoint, this.device)
    this.#ops.close()
    close(this.#connection)
  }
}

/** @throws {MountError} */
export const mountNative = async (options: ServeOptions, log: Logger): Promise<NativeMount> => {
  const { union } = options
  const writable = union.upper !== undefined && !union.readOnly
  const flags = options.mountFlags | (writable ? 0 : MS_RDONLY)
  const words = libfuseOptions(options, flags)
  const Package = loadPackage()
  const { mountFlags } = options
  const deps = { log, notifier: noNotifier, writeback: false, mountFlags, checked: true } as const
  const ops = openUnion(union, deps)
  try {
    const session = new Session({
      ops,
      log,
      tuning: options.tuning,
      uid: process.geteuid?.() ?? 0,
      gid: process.getegid?.() ?? 0,
    })
    const fuse = makeFuse(Package, options.mountpoint, session, words)
    const before = devices()
    await new Promise<void>((resolve, reject) => {
      fuse.open(error => {
        if (error === null || error === undefined) resolve()
        else reject(cannotMount(options.mountpoint, error))
      })
    })
    const [device] = [...devices()].filter(fd => !before.has(fd))
    if (device === undefined) throw cannotMount(options.mountpoint, 'the connection is gone')
    const connection = dup(device)
    if (connection < 0) throw cannotMount(options.mountpoint, errnoName(connection))
    log.info({}, `fuse-native, with its limits: ${LIMITS}`)
    return new NativeMount(options, session, ops, connection, log)
  } catch (error) {
    ops.close()
    throw error
  }
}

const cannotMount = (mountpoint: string, reason: unknown): MountError =>
  new MountError(
    `cannot mount on ${mountpoint} through fuse-native: ${reason instanceof Error ? reason.message : String(reason)}`,
    { option: 'mountpoint', path: mountpoint, code: errnoName(-E.EIO) },
  )

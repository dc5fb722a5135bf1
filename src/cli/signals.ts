/**
 * Signal handling of a server. The first SIGTERM, SIGINT or SIGHUP unmounts all its mounts. A busy
 * mount is detached from the tree and served until the last open file is closed. The second signal
 * ends the server at once. No mount without a server is ever left in the tree.
 */

import { writeFileSync } from 'node:fs'

import type { Logger } from '../log.js'
import type { Mount } from '../server/live-mount.js'
import { killServer } from '../server/mount.js'
import { deviceOn } from '../host/proc-mounts.js'

/** How long a server may take to end after its connections were aborted. It is killed then. */
const ABORT_MS = 2000

export interface Signals {
  /**
   * Adds a mount. Signals received earlier are applied to it now.
   * @param log the mount's logger
   */
  attach(mount: Mount, log?: Logger): void
  /**
   * Calls `listener` at the first signal that ends the server, or at once if it has been received.
   */
  onLeave(listener: () => void): void
}

interface Attached {
  mount: Mount
  log: Logger
  device: string | undefined
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error)

/** Installs the handlers. It must be called before anything is mounted. */
export const handleSignals = (log: Logger): Signals => {
  const live = new Set<Attached>()
  const listeners: (() => void)[] = []
  let received = 0
  let reportPending = false

  const apply = (which: Iterable<Attached>): void => {
    if (received === 1) for (const one of which) void unmountOrDetach(one)
    else if (received > 1) abort([...which], log)
  }
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    process.on(signal, () => {
      received++
      log.info({ signal }, received === 1 ? `${signal}: unmounting` : `${signal} again: aborting`)
      if (received === 1) for (const listener of listeners) listener()
      apply(live)
    })
  }
  process.on('SIGUSR1', () => {
    reportPending = live.size === 0
    for (const one of live) void report(one)
  })

  return {
    attach(mount, mountLog = log) {
      const one = { mount, log: mountLog, device: deviceOn(mount.mountpoint) }
      live.add(one)
      const forget = (): void => void live.delete(one)
      mount.closed.then(forget, forget)
      apply([one])
      if (reportPending) void report(one)
      reportPending = false
    },
    onLeave(listener) {
      if (received > 0) listener()
      else listeners.push(listener)
    },
  }
}

const unmountOrDetach = async ({ mount, log }: Attached): Promise<void> => {
  try {
    await mount.unmount()
    return
  } catch (error) {
    log.warn(
      { error: messageOf(error) },
      'not unmounted: detached from the tree, and served until the last file is closed',
    )
  }
  try {
    await mount.unmount({ lazy: true })
  } catch (error) {
    log.error({ error: messageOf(error) }, "the mount can't be detached from the tree")
  }
}

const killSelf = (): void => void process.kill(process.pid, 'SIGKILL')

/** Ends the mounts at once. Processes that still use them get ENOTCONN. */
const abort = (which: readonly Attached[], log: Logger): void => {
  const served = which.filter(({ mount }) => !killServer(mount))
  if (served.length === 0) return
  try {
    for (const { device } of served)
      writeFileSync(`/sys/fs/fuse/connections/${device?.split(':')[1]}/abort`, '1')
    setTimeout(killSelf, ABORT_MS).unref()
  } catch {
    log.warn({}, "the connection can't be aborted (fusectl is not mounted): the server is killed")
    killSelf()
  }
}

const report = async ({ mount, log }: Attached): Promise<void> => {
  try {
    log.info(await mount.stats(), 'counters')
  } catch (error) {
    log.warn({ error: messageOf(error) }, 'no counters')
  }
}

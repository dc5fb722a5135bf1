/**
 * What signals do to a server. The first of SIGTERM, SIGINT and SIGHUP unmounts; where the mount is busy it
 * is taken out of the tree and served until the last open file is closed. The second one ends the server
 * at once. In no case a mount without a server is left in the tree.
 */

import { writeFileSync } from 'node:fs'

import type { Logger } from '../log.js'
import { killServer, type Mount } from '../mount.js'
import { deviceOn } from '../overlay/mountinfo.js'

/** How long a server whose connection was aborted may take to end before it is killed. */
const ABORT_MS = 2000

export interface Signals {
  /** Signals that came before are acted on now. */
  attach(mount: Mount): void
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error)

/** Installs the handlers; to be called before anything is mounted. */
export const handleSignals = (log: Logger): Signals => {
  let mount: Mount | undefined
  let device: string | undefined
  let received = 0
  let asked = false

  const act = (): void => {
    if (mount === undefined || received === 0) return
    if (received === 1) void leave(mount, log)
    else abort(mount, device, log)
  }
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    process.on(signal, () => {
      received++
      log.info({ signal }, received === 1 ? `${signal}: unmounting` : `${signal} again: aborting`)
      act()
    })
  }
  process.on('SIGUSR1', () => {
    asked = mount === undefined
    if (mount !== undefined) void report(mount, log)
  })

  return {
    attach(live) {
      mount = live
      device = deviceOn(live.mountpoint)
      act()
      if (asked) void report(live, log)
      asked = false
    },
  }
}

const leave = async (mount: Mount, log: Logger): Promise<void> => {
  try {
    await mount.unmount()
    return
  } catch (error) {
    log.warn(
      { error: messageOf(error) },
      'not unmounted: to be taken out of the tree, and served until the last file is closed',
    )
  }
  try {
    await mount.unmount({ lazy: true })
  } catch (error) {
    log.error({ error: messageOf(error) }, "the mount can't be taken out of the tree")
  }
}

const die = (): void => void process.kill(process.pid, 'SIGKILL')

/** Whoever still uses the mount gets ENOTCONN from here on. */
const abort = (mount: Mount, device: string | undefined, log: Logger): void => {
  if (killServer(mount)) return
  const connection = device?.split(':')[1]
  try {
    writeFileSync(`/sys/fs/fuse/connections/${connection}/abort`, '1')
    setTimeout(die, ABORT_MS).unref()
  } catch {
    log.warn({}, 'no way to abort the connection but to be killed (fusectl is not mounted)')
    die()
  }
}

const report = async (mount: Mount, log: Logger): Promise<void> => {
  try {
    log.info(await mount.stats(), 'counters')
  } catch (error) {
    log.warn({ error: messageOf(error) }, 'no counters')
  }
}

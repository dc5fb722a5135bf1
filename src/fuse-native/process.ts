/**
 * The process of a union that is mounted through fuse-native. serve.ts starts it and talks to it
 * over Node's IPC channel. It ignores signals: the process that has started it unmounts, and the
 * end of the mount ends this process.
 */

import { plainError, remoteLogger, type FromWorker, type ServeOptions } from '../server/messages.js'
import { NATIVE_SERVER_TITLE } from '../host/servers.js'
import { unmountAsync } from '../fuse/mount/mount.js'
import { MNT_DETACH } from '../sys/constants.js'
import { widenDescriptorTable } from '../sys/proc.js'
import { mountNative, type NativeMount } from './mount.js'

/** Messages to this process. */
export type ToProcess = { type: 'start'; options: ServeOptions } | { type: 'stats'; id: number }

/**
 * Messages from this process: those of a union's thread, except the ones with descriptors, which
 * cannot be shared.
 */
export type FromProcess =
  | Exclude<FromWorker, { type: 'mounted' | 'mount' | 'later' | 'explained' }>
  | { type: 'live'; device: string | undefined }

const send = (message: FromProcess, then: () => void = () => {}): void => {
  if (process.connected) process.send?.(message, undefined, {}, then)
  else then()
}

/**
 * Ends by SIGKILL. libfuse's thread may still be cleaning up, and a regular exit would run the
 * libraries' destructors at the same time. All data is safe already.
 */
const end = (error?: unknown): void =>
  send(
    error === undefined ? { type: 'closed' } : { type: 'closed', error: plainError(error) },
    () => process.kill(process.pid, 'SIGKILL'),
  )

const leave = async (mountpoint: string, error: unknown): Promise<void> => {
  await unmountAsync(mountpoint, MNT_DETACH)
  end(error)
}

let live: NativeMount | undefined

const start = async (options: ServeOptions): Promise<void> => {
  // Its messages `log` and `closed` are the same as those of a union's thread.
  const log = remoteLogger(options.logLevel, message => send(message as FromProcess))
  process.on('uncaughtException', error => {
    log.error({ err: error }, 'a fault of the program')
    void leave(options.mountpoint, error)
  })
  // The parent process has died. If it was killed, the mount still exists. This process kills
  // itself and leaves a dead mount, as for a mount whose own server was killed: an unmount could
  // expose a directory below it to writes by mistake.
  process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'))
  try {
    live = await mountNative(options, log)
    send({ type: 'live', device: live.device })
    send({ type: 'ready', io: 'cached' })
    void widenDescriptorTable()
    await live.run()
    end()
  } catch (error) {
    end(error)
  }
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1'] as const) {
  process.on(signal, () => {})
}
process.on('message', (message: ToProcess) => {
  if (message.type === 'start') {
    process.title = `${NATIVE_SERVER_TITLE} ${message.options.mountpoint}`
    void start(message.options)
  } else {
    send({ type: 'stats', id: message.id, stats: live?.stats() ?? {} })
  }
})

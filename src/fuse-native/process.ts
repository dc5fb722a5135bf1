/**
 * The process of a union that is mounted through fuse-native: started by serve.ts, which it talks
 * to over the channel that Node gives to a child. It lets no signal end it: whoever started it
 * unmounts, and the end of the mount is its own.
 */

import { plainError, remoteLogger, type FromWorker, type ServeOptions } from '../server/messages.js'
import { SERVANT } from '../host/servers.js'
import { unmountAsync } from '../fuse/mount/mount.js'
import { MNT_DETACH } from '../sys/constants.js'
import { widenDescriptorTable } from '../sys/proc.js'
import { mountNative, type NativeMount } from './mount.js'

/** To this process. */
export type ToProcess = { type: 'start'; options: ServeOptions } | { type: 'stats'; id: number }

/** From it: what a union's thread says, but for its descriptors, which can't be shared. */
export type FromProcess =
  | Exclude<FromWorker, { type: 'mounted' | 'mount' | 'later' | 'explained' }>
  | { type: 'live'; device: string | undefined }

const send = (message: FromProcess, then: () => void = () => {}): void => {
  if (process.connected) process.send?.(message, undefined, {}, then)
  else then()
}

/**
 * libfuse's thread may still be taking its things apart, while a regular exit would have the
 * libraries do so as well. There is nothing left to be saved.
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
  // `log` and `closed` are among what a union's thread says.
  const log = remoteLogger(options.logLevel, message => send(message as FromProcess))
  process.on('uncaughtException', error => {
    log.error({ err: error }, 'a fault of the program')
    void leave(options.mountpoint, error)
  })
  // Who has started this is gone. What it left mounted (which only one that was killed does) is
  // dead with it, as a mount is whose own server was killed: below it there may be a directory that
  // nobody must write to by mistake.
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
    process.title = `${SERVANT} ${message.options.mountpoint}`
    void start(message.options)
  } else {
    send({ type: 'stats', id: message.id, stats: live?.stats() ?? {} })
  }
})

/** Unmounts on behalf of the owner of a server: calls umount2(2) and waits for the server's end. */

import { MountError } from '../../errors.js'
import { MNT_DETACH } from '../../sys/constants.js'
import { E, errnoMessage, errnoName } from '../../sys/errno.js'
import { unmountAsync } from './mount.js'

/**
 * How long `unmountServer` waits for the server's end, in milliseconds. A copy of the mount in
 * another mount namespace keeps the server alive for an unknown time.
 */
const END_MS = 2000

export interface Deferred<T> {
  readonly promise: Promise<T>
  readonly resolve: (value: T) => void
  readonly reject: (error: Error) => void
}

export const deferred = <T>(): Deferred<T> => {
  const parts: Partial<{ -readonly [K in keyof Deferred<T>]: Deferred<T>[K] }> = {}
  parts.promise = new Promise<T>((resolve, reject) => {
    parts.resolve = resolve
    parts.reject = reject
  })
  return parts as Deferred<T>
}

interface Mounted {
  readonly mountpoint: string
  readonly closed: Promise<void>
}

/** Unmounts and, unless `lazy`, waits for the server's end. @throws {MountError} */
export const unmountServer = async (
  server: Mounted,
  { lazy = false }: { lazy?: boolean },
): Promise<void> => {
  const r = await unmountAsync(server.mountpoint, lazy ? MNT_DETACH : 0)
  if (r < 0) await failed(server, r)
  if (!lazy) await endOrTimeout(server)
}

const failed = async (server: Mounted, r: number): Promise<void> => {
  // EINVAL: it is no longer a mountpoint, so the server is about to end.
  if (r === -E.EINVAL && (await endOrTimeout(server))) return
  const code = errnoName(r)
  const about = { option: 'mountpoint', path: server.mountpoint, code }
  const advice = r === -E.EBUSY ? ': files or directories in it are in use' : ''
  throw new MountError(`cannot unmount ${server.mountpoint}: ${errnoMessage(r)}${advice}`, about)
}

/** Whether the server has ended within END_MS. */
const endOrTimeout = async ({ closed }: Mounted): Promise<boolean> => {
  const timeout = deferred<boolean>()
  const timer = setTimeout(() => timeout.resolve(false), END_MS)
  const ended = closed.then(
    () => true,
    () => true,
  )
  const result = await Promise.race([ended, timeout.promise])
  clearTimeout(timer)
  return result
}

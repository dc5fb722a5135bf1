/** The ways to mount a union: the kernel's overlayfs, and any command. */

import { spawnSync } from 'node:child_process'
import * as sys from '../helpers/syscalls.js'
import type { LayerPaths } from './stack.js'
import { inUserNamespace } from './userns.js'

/**
 * Options of both sides. `metacopy` affects only the kernel; the other side has to read such files.
 */
export interface UnionOptions {
  redirectDir: 'on' | 'off'
  metacopy: boolean
}

export interface Mounter {
  /** The kernel's FUSE client is between the calls and the union. */
  fuse: boolean
  /** The kernel's FUSE client caches written pages, and with them sizes and times. */
  writeBack: boolean
  /** The server runs through the package fuse-native, which can't express everything. */
  native: boolean
  mount(layers: LayerPaths, mountpoint: string, options: UnionOptions): void
  umount(layers: LayerPaths, mountpoint: string): void
}

export class MountFailed extends Error {}

const layerOptions = (layers: LayerPaths): string =>
  `lowerdir=${layers.lowers.join(':')}${
    layers.upper === null ? '' : `,upperdir=${layers.upper},workdir=${layers.work}`
  }`

const pause = (ms: number): void => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

const EBUSY = 16
const umountWithRetries = (mountpoint: string): void => {
  for (let tries = 0; ; tries++) {
    const result = sys.umount(mountpoint, sys.MNT.NOFOLLOW)
    if (result === 0) return
    if (result !== -EBUSY || tries >= 50)
      throw new MountFailed(`umount ${mountpoint}: errno ${-result}`)
    pause(20)
  }
}

/**
 * index=on keeps hard links across copy-up, as the union does. noatime, because access times of
 * layers would depend on earlier reads through either mount. In a user namespace `userxattr`
 * excludes index and redirects.
 */
export const kernelMounter: Mounter = {
  fuse: false,
  writeBack: false,
  native: false,
  mount(layers, mountpoint, { redirectDir, metacopy }) {
    const options = inUserNamespace
      ? ',userxattr,xino=off'
      : layers.upper === null
        ? `,metacopy=${metacopy ? 'on' : 'off'}`
        : `,index=on,redirect_dir=${redirectDir},metacopy=${metacopy ? 'on' : 'off'},xino=off`
    const data = layerOptions(layers) + options
    for (let tries = 0; ; tries++) {
      const result = sys.mount('overlay', mountpoint, 'overlay', sys.MS.NOATIME, data)
      if (result >= 0) return
      // A mount that was unmounted just before keeps its layers while another mount namespace has a
      // copy of it.
      if (result !== -EBUSY || tries >= 500)
        throw new MountFailed(`mount of kernel overlayfs: errno ${-result}`)
      pause(20)
    }
  },
  umount(_layers, mountpoint) {
    umountWithRetries(mountpoint)
  },
}

const isMounted = (mountpoint: string): boolean => {
  const here = sys.lstat(sys.AT_FDCWD, mountpoint)
  const above = sys.lstat(sys.AT_FDCWD, `${mountpoint}/..`)
  return typeof here === 'object' && typeof above === 'object' && here.dev !== above.dev
}

const LOCK_EX_NB = 6
/**
 * A server may live a moment longer than its mount and holds the lock of the upper layer until
 * then.
 */
const waitForRelease = (layers: LayerPaths): void => {
  if (layers.upper === null) return
  const fd = sys.open(layers.upper, sys.O.RDONLY | sys.O.DIRECTORY)
  if (fd < 0) return
  for (let tries = 0; tries < 500 && sys.flock(fd, LOCK_EX_NB) !== 0; tries++) pause(10)
  sys.close(fd)
}

/**
 * A command that returns when the mount is live. In its words `{layers}` becomes lowerdir=… and,
 * with an upper layer, upperdir=…,workdir=…; `{redirect}` becomes on or off; `{mnt}` becomes the
 * mountpoint.
 */
export const commandMounter = (
  command: string,
  { writeBack = true, native = false } = {},
): Mounter => ({
  fuse: true,
  writeBack,
  native,
  mount(layers, mountpoint, { redirectDir }) {
    const words = command
      .split(/\s+/)
      .map(word =>
        word
          .replaceAll('{layers}', layerOptions(layers))
          .replaceAll('{redirect}', redirectDir)
          .replaceAll('{mnt}', mountpoint),
      )
    const [program = '', ...args] = words
    const result = spawnSync(program, args, {
      encoding: 'latin1',
      timeout: 30_000,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    if (result.status !== 0 || !isMounted(mountpoint))
      throw new MountFailed(
        `status ${result.status ?? result.signal}: ${result.stderr.trim() || result.error?.message}: ${words.join(' ')}`,
      )
  },
  umount(layers, mountpoint) {
    umountWithRetries(mountpoint)
    waitForRelease(layers)
  },
})

export const TRANSPORTS = ['kernel', 'fuse-native'] as const
export type Transport = (typeof TRANSPORTS)[number]

export const mounterFor = (
  candidate: string,
  io: string,
  transport: Transport = 'kernel',
): Mounter => {
  if (candidate === 'kernel') return kernelMounter
  const native = transport === 'fuse-native'
  return commandMounter(
    candidate === 'tsoverlay'
      ? `${process.execPath} dist/cli/main.cjs mount --transport ${transport} -o {layers},io=${io},noatime,redirect_dir={redirect} {mnt}`
      : candidate,
    // libfuse 2 does not support the write-back cache.
    { writeBack: io !== 'passthrough' && !native, native },
  )
}

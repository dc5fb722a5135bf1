/** The options for libfuse: its own, and the mount flags that it supports. */

import { MountError } from '../errors.js'
import type { ServeOptions } from '../server/messages.js'
import {
  MS_DIRSYNC,
  MS_NOATIME,
  MS_NODEV,
  MS_NODIRATIME,
  MS_NOEXEC,
  MS_NOSUID,
  MS_NOSYMFOLLOW,
  MS_RDONLY,
  MS_RELATIME,
  MS_STRICTATIME,
  MS_SYNCHRONOUS,
} from '../sys/constants.js'

/**
 * The size of the buffers in fuse-native.c for the mountpoint and for the options, without the NUL.
 */
const TEXT_MAX = 1023

/** The size of libfuse 2's buffers. */
const MAX_WRITE = 128 * 1024

const YEAR = 365 * 24 * 3600

/** By default libfuse mounts with nosuid and nodev, so every flag is written out. */
const words = (flags: number): string[] => [
  (flags & MS_RDONLY) === 0 ? 'rw' : 'ro',
  (flags & MS_NOSUID) === 0 ? 'suid' : 'nosuid',
  (flags & MS_NODEV) === 0 ? 'dev' : 'nodev',
  (flags & MS_NOEXEC) === 0 ? 'exec' : 'noexec',
  ...((flags & MS_NOATIME) === 0 ? [] : ['noatime']),
  ...((flags & MS_SYNCHRONOUS) === 0 ? [] : ['sync']),
  ...((flags & MS_DIRSYNC) === 0 ? [] : ['dirsync']),
]

const REMOUNTED = MS_NODIRATIME | MS_STRICTATIME | MS_NOSYMFOLLOW
const PER_MOUNT =
  MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_RELATIME | REMOUNTED

/** All flags of the mount, if libfuse does not support one of them; else 0. They need a remount. */
export const laterFlags = (flags: number): number =>
  (flags & REMOUNTED) === 0 ? 0 : flags & PER_MOUNT

const escape = (text: string): string => text.replaceAll(/[\\,]/g, match => `\\${match}`)

const text = (options: ServeOptions, flags: number): string => {
  const timeout = options.timeout ?? YEAR
  const list = [
    `fsname=${escape(options.fsname)}`,
    ...(options.subtype === '' ? [] : [`subtype=${escape(options.subtype)}`]),
    'default_permissions',
    ...(options.allowOther ? ['allow_other'] : []),
    // A mountpoint may be a layer, so it need not be empty.
    'nonempty',
    // Use the union's inode numbers.
    'use_ino',
    'big_writes',
    `max_write=${Math.min(MAX_WRITE, options.tuning.maxWrite)}`,
    // Names change only through the mount, so the kernel may cache them. Attributes are not cached:
    // to the kernel, each name of a file is a separate inode.
    `entry_timeout=${timeout}`,
    `negative_timeout=${timeout}`,
    'attr_timeout=0',
    ...words(flags),
  ]
  return `-o${list.join(',')}`
}

const refuse = (option: string, reason: string): never => {
  throw new MountError(`${option}: ${reason}; use transport=kernel`, { option, code: 'EINVAL' })
}

/**
 * Returns the package's only argument for libfuse. @throws {MountError} the package does not
 * support an option
 */
export const libfuseOptions = (options: ServeOptions, flags: number): string => {
  if (options.io === 'passthrough')
    return refuse('io=passthrough', 'fuse-native has no passthrough')
  if (Buffer.byteLength(options.mountpoint) > TEXT_MAX)
    return refuse('mountpoint', `fuse-native takes at most ${TEXT_MAX} bytes`)
  const all = text(options, flags)
  if (Buffer.byteLength(all) > TEXT_MAX)
    return refuse('fsname', `with all other options longer than ${TEXT_MAX} bytes`)
  return all
}

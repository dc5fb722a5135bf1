/** The mark `.wh..wh..opq` of container layers: a directory that hides what lies below it. */

import { openat2 } from '../../sys/at.js'
import {
  O_CREAT,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_WRONLY,
  RESOLVE_BENEATH,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import type { ByteString, Result } from '../ops.js'

/** The AUFS and OCI form of "opaque": a file of this name in the directory. */
export const OPAQUE_FILE = '.wh..wh..opq'

/** The directory may have been replaced by a symlink since it was looked at. */
const RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS

const opaqueFilePath = (name: ByteString): ByteString =>
  name === '' ? OPAQUE_FILE : `${name}/${OPAQUE_FILE}`

/** Puts the mark into the directory (fd, name). */
export function createOpaqueFile(fd: number, name: ByteString): Result {
  return createMarkerFile(fd, opaqueFilePath(name))
}

/**
 * Makes an empty file that says all by its name. One that is there, whatever it is, says the same,
 * and is not opened.
 */
export function createMarkerFile(fd: number, path: ByteString): Result {
  const mark = openat2(fd, path, O_CREAT | O_EXCL | O_WRONLY, 0, RESOLVE)
  if (mark < 0) return mark === -E.EEXIST ? 0 : mark
  close(mark)
  return 0
}

/** An O_PATH descriptor of the mark in the directory (fd, name); -errno where there is none. */
export const openOpaqueFile = (fd: number, name: ByteString): Result =>
  openat2(fd, opaqueFilePath(name), O_PATH | O_NOFOLLOW, 0, RESOLVE)

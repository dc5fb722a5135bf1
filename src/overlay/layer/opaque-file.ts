/**
 * The opaque file `.wh..wh..opq` of container layers. It hides what lower layers have in its
 * directory.
 */

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

/** The name of the AUFS and OCI opaque file. */
export const OPAQUE_FILE = '.wh..wh..opq'

/** The directory may have been replaced by a symlink since it was looked up. */
const RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS

const opaqueFilePath = (name: ByteString): ByteString =>
  name === '' ? OPAQUE_FILE : `${name}/${OPAQUE_FILE}`

/** Creates the opaque file in the directory (fd, name). */
export function createOpaqueFile(fd: number, name: ByteString): Result {
  return createMarkerFile(fd, opaqueFilePath(name))
}

/**
 * Creates an empty file whose name is its only content. An existing object of that name has the
 * same meaning, whatever its type. It is not opened.
 */
export function createMarkerFile(fd: number, path: ByteString): Result {
  const created = openat2(fd, path, O_CREAT | O_EXCL | O_WRONLY, 0, RESOLVE)
  if (created < 0) return created === -E.EEXIST ? 0 : created
  close(created)
  return 0
}

/**
 * An O_PATH descriptor of the opaque file in the directory (fd, name), or -errno if there is none.
 */
export const openOpaqueFile = (fd: number, name: ByteString): Result =>
  openat2(fd, opaqueFilePath(name), O_PATH | O_NOFOLLOW, 0, RESOLVE)

/** Follows redirect paths in lower layers. Corresponds to fs/overlayfs/namei.c. */

import { Stat, type Ino } from '../../sys/stat.js'
import { DirectoryXattrs, Found, lookupInDirectory, readDirectoryXattrs } from './lookup-layer.js'
import { identify } from './real-identity.js'
import { RealDir, type Layer } from './layer.js'
import type { ByteString } from '../ops.js'
import { shownIno, type LayerContext } from './context.js'

const scratch = new Stat()
const xattrs = new DirectoryXattrs()

/**
 * Appends to `dirs` the directories that an absolute redirect leads to in the layers below `above`.
 *
 * @returns the shown inode number of the first of them, or null if none was found
 */
export function followRedirect(
  u: LayerContext,
  redirect: ByteString,
  above: number,
  dirs: RealDir[],
): Ino | null {
  let path = redirect.split('/').filter(part => part !== '')
  let ino: Ino | null = null
  for (const layer of u.lowers) {
    if (layer.index <= above) continue
    const walked = walk(u, layer, path)
    if (walked.dir !== null) {
      if (ino === null) ino = shownIno(u, layer, walked.dir.real)
      dirs.push(walked.dir)
    }
    if (walked.stop) break
    path = walked.below
  }
  return ino
}

/**
 * Walks a path of directories down from a layer's root (kernel: ovl_lookup_layer).
 *
 * @returns the directory, or null; whether lower layers are hidden; and the path in the layers
 *   below, which redirects on the way may have changed
 */
export function walk(
  u: LayerContext,
  layer: Layer,
  path: ByteString[],
): { dir: RealDir | null; stop: boolean; below: ByteString[] } {
  let at = layer.root
  let stop = false
  let below = path
  for (const [i, part] of path.entries()) {
    const found = lookupInDirectory(u, at, part, scratch)
    if (found === Found.NOTHING) return { dir: null, stop, below }
    const next = new RealDir(layer, at, part)
    identify(next, scratch, layer)
    if (found !== Found.DIRECTORY || readDirectoryXattrs(u, next, at, part, false, xattrs) < 0)
      return { dir: null, stop: true, below }
    const { redirect } = xattrs
    if (xattrs.opaque) stop = true
    else if (redirect !== '') {
      const rest = path.slice(i + 1)
      const absolute = redirect.startsWith('/')
      // An absolute redirect leaves the opaque directories on the way (kernel: ovl_check_redirect).
      if (absolute) stop = false
      const above = absolute ? [] : below.slice(0, below.length - rest.length - 1)
      below = [...above, ...redirect.split('/').filter(step => step !== ''), ...rest]
    }
    at = next
  }
  return { dir: at, stop, below }
}

/**
 * Reads from a slow layer everything that a copy-up will need, before the copy-up changes anything.
 * Until then the operation can be suspended and started again (slow.ts). Each call here is one that
 * the copy-up repeats.
 */

import { fstatx, readlinkat, statxat } from '../../sys/at.js'
import { O_NONBLOCK } from '../../sys/constants.js'
import { close, getFlags } from '../../sys/io.js'
import { Stat } from '../../sys/stat.js'
import { getxattrValue, listxattrNames } from '../../sys/xattr.js'
import { openSource, resolveMetacopy } from './metacopy.js'
import type { Node } from '../inode/node.js'
import { encodeOrigin } from '../layer/origin.js'
import { applyOverride } from '../layer/stat-override.js'
import { openRead } from '../../sys/real-dir.js'
import { Place } from '../inode/place.js'
import { layerOf, locate } from '../inode/real-object.js'
import type { CopyUpContext } from './context.js'

const st = new Stat()
const place = new Place()
/** The same size as the buffer of the copy-up. */
const target = Buffer.allocUnsafeSlow(4096)

/**
 * Reads a node and those of its ancestors that must be copied up.
 *
 * @throws Pending while an answer of the slow layer is outstanding
 */
export function readAhead(u: CopyUpContext, node: Node): void {
  if (u.slow === null) return
  readUp(u, node)
  for (const { parent } of node.links ?? []) readUp(u, parent)
}

function readUp(u: CopyUpContext, node: Node): void {
  for (let at: Node | null = node; at !== null && !at.upper; at = at.parent) readObject(u, at)
}

/**
 * Makes the calls that a copy-up will make. Their results are ignored here; the copy-up handles
 * them.
 */
function readObject(u: CopyUpContext, node: Node): void {
  if (resolveMetacopy(u, node) < 0) return
  const layer = layerOf(u, node)
  const src = node.isReg ? openSource(u, node) : -1
  if (layer?.slow === true && locate(u, node, place) >= 0) {
    const ofData = src >= 0 && !node.metacopy
    const fd = ofData ? src : place.fd
    const name = ofData ? '' : place.name
    const stated = statxat(fd, name, st)
    if (stated >= 0 && u.appliesOverrides) void applyOverride(layer, fd, name, st)
    const names = listxattrNames(fd, name)
    if (typeof names !== 'number') for (const attr of names) getxattrValue(fd, name, attr)
    void encodeOrigin(layer, fd, name)
    if (st.isLnk) void readlinkat(fd, name, target)
    if (node.isDir || node.metacopy) readFlags(openRead(fd, name || '.', O_NONBLOCK))
  }
  if (src >= 0) void fstatx(src, st)
  readFlags(src)
}

function readFlags(fd: number): void {
  if (fd < 0) return
  void getFlags(fd)
  close(fd)
}

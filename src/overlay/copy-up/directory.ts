/** Copy-up of directories, parents first. Mirrors fs/overlayfs/copy_up.c. */

import { fstatx, mkdirat, statxat } from '../../sys/at.js'
import { RENAME_NOREPLACE } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { Stat } from '../../sys/stat.js'
import { invalidateAttrs } from '../inode/invalidate.js'
import { identify } from '../layer/real-identity.js'
import { RealDir } from '../layer/layer.js'
import { renameWithOwnerAccess } from '../owner/owner-access.js'
import { copyMetadata } from './metadata.js'
import type { Node } from '../inode/node.js'
import type { ByteString, Result } from '../ops.js'
import { applyOverride } from '../layer/stat-override.js'
import { publish, type NameCopy } from './publish.js'
import { readAhead } from './read-ahead.js'
import { isReadOnly } from '../inode/context.js'
import type { CopyUpContext } from './context.js'
import { Copy } from './copy.js'

const sourceStat = new Stat()
const copyStat = new Stat()

/**
 * Makes sure that the upper layer has the directory and all of its ancestors.
 *
 * @returns 0 or -errno
 */
export function ensureUpperDir(u: CopyUpContext, node: Node): Result {
  if (node.upper) return 0
  if (isReadOnly(u)) return -E.EROFS
  const { slow } = u
  if (slow === null) return bringUp(u, node)
  readAhead(u, node)
  return slow.atomicStep(() => bringUp(u, node))
}

function bringUp(u: CopyUpContext, node: Node): Result {
  if (node.upper) return 0
  const parent = node.parent
  const real = node.dirs[0]
  if (parent === null || real === undefined) return -E.ENOENT
  const above = bringUp(u, parent)
  if (above < 0) return above
  return copyUpDirectory(u, node, parent, real)
}

const makeDirectory = (fd: number, temp: ByteString): Result => mkdirat(fd, temp, 0o700)
const moveDirectory: NameCopy = (from, temp, dirfd, name) =>
  renameWithOwnerAccess(from, temp, dirfd, name, RENAME_NOREPLACE)

function copyUpDirectory(u: CopyUpContext, node: Node, parent: Node, real: RealDir): Result {
  const workdir = u.workdir
  const into = parent.upperDir
  if (workdir === null || into === null) return -E.EROFS
  const fd = u.fds.get(real)
  if (fd < 0) return fd
  let result = fstatx(fd, sourceStat)
  if (result >= 0 && u.appliesOverrides) result = applyOverride(real.layer, fd, '', sourceStat)
  if (result < 0) return result
  const staged = workdir.stage(makeDirectory)
  if (staged.result < 0) return staged.result
  const c = new Copy(node, real.layer, sourceStat, copyStat)
  c.srcFd = fd
  c.dstFd = workdir.fd
  c.dstName = staged.name
  result = copyMetadata(u, c)
  if (result >= 0) result = statxat(workdir.fd, staged.name, copyStat)
  if (result >= 0) result = publish(u, parent, node.name, moveDirectory, workdir.fd, staged.name)
  if (result < 0) {
    workdir.discard(staged.name)
    return result
  }
  const upper = new RealDir(into.layer, into, node.name)
  identify(upper, copyStat, upper.layer)
  upper.dotWhiteouts = new Set()
  node.dirs.unshift(upper)
  node.upper = true
  node.lowerPositive = true
  u.copied.objects++
  // The link count of a merged directory differs from that of a lower directory.
  invalidateAttrs(u, node)
  return 0
}

/** Creates hard links. Mirrors fs/overlayfs/dir.c:ovl_link(). */

import { linkat, renameat2, statxat } from '../../sys/at.js'
import { S_IFREG } from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { Stat } from '../../sys/stat.js'
import { copyUp } from '../copy-up/copy-up.js'
import { finishCreate, prepareParent, undoCreate } from './create.js'
import { NewName } from './new-object.js'
import { ensureUpperName, storeUpperNlink } from '../copy-up/hard-links.js'
import { statPlace } from '../inode/drop-privileges.js'
import { isSame, upperKey } from '../layer/real-identity.js'
import { throwIfBusy, type Node } from '../inode/node.js'
import type { ByteString, Entry, Result } from '../ops.js'
import { applyOverride } from '../layer/stat-override.js'
import { setImpure } from '../copy-up/publish.js'
import { pin, unpin } from '../inode/pin.js'
import { fillAttr } from '../inode/shown-attr.js'
import { Place } from '../inode/place.js'
import { identifyAgain } from '../inode/real-object.js'
import type { Union } from './context.js'
import { isDotWhiteoutName, isWhiteout, setOrdinary } from '../layer/whiteout.js'

const newStat = new Stat()
const existing = new Stat()
const place = new Place()

/**
 * Creates a hard link to a file.
 *
 * @throws Pending if a large file must be copied up first
 */
export function link(u: Union, node: Node, parent: Node, name: ByteString, out: Entry): Result {
  if (node.isDir) return -E.EPERM
  if (node.protect !== 0) return -E.EPERM
  throwIfBusy(node)
  let result = prepareParent(u, parent, name)
  if (result < 0) return result
  result = copyUp(u, node)
  if (result < 0) return result
  if (node.parent !== null) {
    result = ensureUpperName(u, node, node.parent, node.name)
    if (result < 0) return result
  }
  result = prepareParent(u, parent, name)
  if (result < 0) return result
  const upper = parent.upperDir
  if (upper === null) return -E.EIO
  const fd = u.fds.get(upper)
  if (fd < 0) return fd
  // The impure xattr and the stored link count are correct whether the link succeeds or fails.
  result = node.hasForeignIno ? setImpure(u, upper, fd) : 0
  if (result >= 0) result = storeUpperNlink(u, node)
  if (result >= 0) result = pin(u, node, place)
  if (result < 0) return result
  const from = { fd: place.fd, name: place.name }
  if (isDotWhiteoutName(name)) result = setOrdinary(u, from.fd, from.name)
  const run = (dirfd: number, at: ByteString): Result => linkat(from.fd, from.name, dirfd, at)
  if (result >= 0) result = run(fd, name)
  const added = new NewName(parent, name, S_IFREG)
  added.dirfd = fd
  if (result === -E.EEXIST) {
    added.replacesWhiteout = true
    result = linkOverWhiteout(u, fd, name, run)
  } else if (result >= 0) finishCreate(u, added)
  // If the upper layer lies in another union, that union may show the new name with a number other
  // than the old one, until it has looked up both.
  const stated = result < 0 || u.upper?.keepsBirthTimes !== false ? null : statPlace(place, newStat)
  if (stated !== null && stated >= 0) identifyAgain(u, node, newStat)
  unpin(place)
  if (result < 0) return result
  return addLink(u, node, added, stated, newStat, out)
}

function linkOverWhiteout(
  u: Union,
  fd: number,
  name: ByteString,
  run: (dirfd: number, at: ByteString) => Result,
): Result {
  const workdir = u.workdir
  if (workdir === null) return -E.EROFS
  const stated = statxat(fd, name, existing)
  if (stated < 0) return stated
  const whiteout = isWhiteout(u.xattrs, fd, name, existing, false)
  if (whiteout <= 0) return whiteout < 0 ? whiteout : -E.EEXIST
  const staged = workdir.stage(run)
  if (staged.result < 0) return staged.result
  const result = renameat2(workdir.fd, staged.name, fd, name, 0)
  if (result < 0) workdir.discard(staged.name)
  return result
}

/**
 * Adds the new link to the node's names.
 *
 * @param stated null, or the result of the stat that filled `st` with the file's attributes
 * @param st receives the attributes if `stated` is null
 */
function addLink(
  u: Union,
  node: Node,
  added: NewName,
  stated: Result | null,
  st: Stat,
  out: Entry,
): Result {
  const { parent, name, dirfd } = added
  let result = stated ?? statxat(dirfd, name, st)
  // Another process has replaced the new link.
  if (result >= 0 && stated === null && !isSame(node, st)) return -E.ESTALE
  if (result >= 0 && u.override) result = applyOverride(u.upper, dirfd, name, st)
  if (result < 0) {
    if (parent.upperDir !== null) undoCreate(u, added)
    return result
  }
  if (node.orphanFd >= 0) {
    // The file had no name (O_TMPFILE); from now on its name leads to it.
    close(node.orphanFd)
    node.orphanFd = -1
    node.unlinked = false
  }
  if (u.upper !== null && (st.nlink > 1 || node.links !== null))
    u.nodes.registerUpper(node, upperKey(st, u.upper))
  u.nodes.addName(node, parent, name, true)
  if (added.replacesWhiteout || node.links !== null) node.lowerPositive = undefined
  else node.lowerPositive = false
  node.lookups++
  out.nodeId = node.id
  fillAttr(u, node, st, out.attr)
  return 0
}

/** The state of one copy-up. */

import { linkFd } from '../../sys/at.js'
import type { Stat } from '../../sys/stat.js'
import type { Node } from '../inode/node.js'
import type { Layer } from '../layer/layer.js'
import type { ByteString } from '../ops.js'
import type { NameCopy } from './publish.js'

/** Gives a name to an open file that has none (O_TMPFILE). */
const linkCopy: NameCopy = (fromFd, _temp, dirfd, name) => linkFd(fromFd, dirfd, name)

/**
 * A copy of a lower object that is being built in the workdir (kernel: struct ovl_copy_up_ctx). The
 * functions of a copy-up pass it on and fill it in.
 */
export class Copy {
  readonly node: Node
  /** The layer of the lower object. */
  readonly layer: Layer
  /**
   * The attributes of the lower object. This buffer and `copyStat` are shared with other copy-ups.
   * So after a job has copied the data, the attributes are read again.
   */
  readonly sourceStat: Stat
  /** The attributes of the finished copy, read before it has a name. */
  readonly copyStat: Stat
  /** The lower object: a name in a directory, or with the name '' the object of `srcFd`. */
  srcFd = -1
  srcName: ByteString = ''
  /** The lower object, if it is open for reading; else -1. */
  openSrc = -1
  /** The copy; `dstName` is '' if `dstFd` is the file itself, open without O_PATH. */
  dstFd = -1
  dstName: ByteString = ''
  /** The mode that the copy was created with in the workdir; -1: nothing is known of the copy. */
  createdMode = -1
  /**
   * The copy has none of the source's data because of O_TRUNC. The truncation counts as a
   * modification.
   */
  truncates = false
  /** Gives the finished copy (fromFd, fromName) its first name. */
  nameCopy = linkCopy
  fromFd = -1
  fromName: ByteString = ''

  constructor(node: Node, layer: Layer, sourceStat: Stat, copyStat: Stat) {
    this.node = node
    this.layer = layer
    this.sourceStat = sourceStat
    this.copyStat = copyStat
  }
}

/** An open file of an inode, as the table of open files (file/handles.ts) has it. */

import type { Fh } from '../ops.js'
import type { Node } from './node.js'

export class FileHandle {
  readonly fh: Fh
  readonly node: Node
  /**
   * The real file; replaced when the node is copied up. -1: it was not needed yet (`realFd` opens
   * it), which only a handle for reading may say.
   */
  fd: number
  readonly writable: boolean
  /**
   * The descriptor is open for reading alone, though the handle may write: `HandleTable.writing`
   * opens it anew.
   */
  onlyReads = false
  /** Its place among the node's (handle-list.ts). */
  slot = 0
  /** Who has it asks that reading moves no access time (O_NOATIME). */
  readonly keepsTime: boolean
  /** The file was seen, or made, without a capability, and nobody has set one since. */
  incapable = false
  /**
   * Writes through mappings of it may come late, and nothing tells of them before (`Ops.mappable`).
   */
  mappable = false

  constructor(fh: Fh, node: Node, fd: number, writable: boolean, keepsTime = false) {
    this.fh = fh
    this.node = node
    this.fd = fd
    this.writable = writable
    this.keepsTime = keepsTime
  }
}

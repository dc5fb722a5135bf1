/** The names and objects that an operation adds to the union. */

import { mkdirat, mknodat, openat, symlinkat } from '../../sys/at.js'
import type { Node } from '../inode/node.js'
import type { ByteString, Caller, Result } from '../ops.js'
import type { Creatable } from '../owner/credentials.js'

/** A name that an operation adds to a directory of the union. */
export class NewName {
  readonly parent: Node
  /** '' for a file without a name (O_TMPFILE). */
  readonly name: ByteString
  /** Type and permissions of the object. */
  mode: number
  /** The descriptor of the parent's upper directory, once that is known. */
  dirfd = -1
  /** The object takes the place of a whiteout. */
  replacesWhiteout = false

  constructor(parent: Node, name: ByteString, mode: number) {
    this.parent = parent
    this.name = name
    this.mode = mode
  }
}

/**
 * Creates the object at (dirfd, name) with this mode (type and permissions). The functions of this
 * type are module-level: V8 discards the code that it compiled for a closure when the last instance
 * of the closure is gone.
 */
type MakeObject = (object: NewObject, dirfd: number, name: ByteString, mode: number) => Result

const makeNode: MakeObject = ({ rdevMajor, rdevMinor }, dirfd, name, mode) =>
  mknodat(dirfd, name, mode, rdevMajor, rdevMinor)
export const makeDirectory: MakeObject = (_object, dirfd, name, mode) =>
  mkdirat(dirfd, name, mode & 0o7777)
export const makeSymlink: MakeObject = ({ target }, dirfd, name) => symlinkat(target, dirfd, name)
export const makeFile: MakeObject = ({ flags }, dirfd, name, mode) =>
  openat(dirfd, name, flags, mode & 0o7777)

/** An object that a caller creates (kernel: struct ovl_cattr). */
export class NewObject extends NewName implements Creatable {
  readonly caller: Caller
  make = makeNode
  /** Of a device. */
  rdevMajor = 0
  rdevMinor = 0
  /** Of a symlink. */
  target: ByteString = ''
  /** The open flags of a file that is also opened. */
  flags = 0
  /** The descriptor of that file, once it is created; else 0. */
  fd = 0
  /** The default ACL of the parent, if it has one. */
  acl: Buffer | null = null

  constructor(caller: Caller, parent: Node, name: ByteString, mode: number) {
    super(parent, name, mode)
    this.caller = caller
  }

  createAt(dirfd: number, name: ByteString, mode: number): Result {
    return this.make(this, dirfd, name, mode)
  }
}

/**
 * The union's own marks on real objects: the `overlay.*` xattrs of kernel overlayfs. Which marks an
 * object bears is learnt with one listxattr; only a mark that is there costs another call.
 */

import { XATTR_CREATE } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { getxattrat, listxattrat, removexattrat, setxattrat } from '../sys/xattr.js'
import { OWNER_READ, OWNER_WRITE, withRight } from './lend.js'
import type { ByteString, Result } from './ops.js'
import { markDotOpaque } from './dot-opaque.js'

export const TRUSTED_PREFIX = 'trusted.overlay.'
export const USER_PREFIX = 'user.overlay.'
/** fuse-overlayfs 1.x marks opaque folders with this one. */
const FUSE_OVERLAYFS_OPAQUE = 'user.fuseoverlayfs.opaque'

/** Bits of what `readMarks` answers. */
export const Mark = {
  OPAQUE: 1,
  REDIRECT: 2,
  METACOPY: 4,
  ORIGIN: 8,
  IMPURE: 16,
  WHITEOUT: 32,
  PROTATTR: 64,
  NLINK: 128,
} as const

/**
 * What is read under the other prefix, in lower layers: what hides. A redirect or a metadata copy that
 * any user could have set on an own file would show what lies anywhere in the layers below.
 */
const FOREIGN = Mark.OPAQUE | Mark.WHITEOUT

const MARK_NAMES: Record<string, number> = {
  opaque: Mark.OPAQUE,
  redirect: Mark.REDIRECT,
  metacopy: Mark.METACOPY,
  origin: Mark.ORIGIN,
  impure: Mark.IMPURE,
  whiteout: Mark.WHITEOUT,
  protattr: Mark.PROTATTR,
  nlink: Mark.NLINK,
}

// The kernel clears as much memory as a buffer is long: small ones first.
const smallList = Buffer.allocUnsafeSlow(512)
const wholeList = Buffer.allocUnsafeSlow(65536)
const smallValue = Buffer.allocUnsafeSlow(256)
const wholeValue = Buffer.allocUnsafeSlow(65536)

/** The xattr names of one prefix. */
export class MarkNames {
  readonly prefix: ByteString
  readonly opaque: ByteString
  readonly redirect: ByteString
  readonly metacopy: ByteString
  readonly origin: ByteString
  readonly impure: ByteString
  readonly whiteout: ByteString
  readonly protattr: ByteString
  readonly nlink: ByteString
  readonly upper: ByteString

  constructor(prefix: ByteString) {
    this.prefix = prefix
    this.opaque = prefix + 'opaque'
    this.redirect = prefix + 'redirect'
    this.metacopy = prefix + 'metacopy'
    this.origin = prefix + 'origin'
    this.impure = prefix + 'impure'
    this.whiteout = prefix + 'whiteout'
    this.protattr = prefix + 'protattr'
    this.nlink = prefix + 'nlink'
    this.upper = prefix + 'upper'
  }
}

/** Reads marks: under one prefix, and in lower layers those that hide under both. */
export class MarkReader {
  readonly names: MarkNames
  /** What was read last bears no extended attribute at all. */
  bare = false
  readonly #other: MarkNames

  constructor(userxattr: boolean) {
    this.names = new MarkNames(userxattr ? USER_PREFIX : TRUSTED_PREFIX)
    this.#other = new MarkNames(userxattr ? TRUSTED_PREFIX : USER_PREFIX)
  }

  /** Which marks the object bears (bits of `Mark`); 0 also where xattrs are not supported. */
  read(fd: number, name: ByteString, lower: boolean): number {
    let buffer = smallList
    let length = listxattrat(fd, name, buffer)
    if (length === -E.ERANGE) length = listxattrat(fd, name, (buffer = wholeList))
    this.bare = length === 0
    if (length <= 0) return 0
    const list = buffer.latin1Slice(0, length)
    if (!list.includes('overlay')) return 0
    let bits = 0
    for (const attr of list.split('\0')) {
      if (attr.startsWith(this.names.prefix))
        bits |= MARK_NAMES[attr.slice(this.names.prefix.length)] ?? 0
      else if (lower && attr.startsWith(this.#other.prefix))
        bits |= (MARK_NAMES[attr.slice(this.#other.prefix.length)] ?? 0) & FOREIGN
      else if (lower && attr === FUSE_OVERLAYFS_OPAQUE) bits |= Mark.OPAQUE
    }
    return bits
  }

  /**
   * The value of `overlay.opaque` (`y` or `x`), or '' for none. One that is there but may not be read (of a
   * lower folder, by an ordinary user) counts as `y`: what may be deleted is not shown.
   */
  opaque(fd: number, name: ByteString, lower: boolean): string {
    const attributes = [this.names.opaque]
    if (lower) attributes.push(this.#other.opaque, FUSE_OVERLAYFS_OPAQUE)
    for (const attr of attributes) {
      const value = readValue(fd, name, attr, lower)
      if (value === -E.EACCES) return 'y'
      if (typeof value === 'string') return value
    }
    return ''
  }

  /** A mark's value as bytes in a string, or null for none. */
  value(fd: number, name: ByteString, mark: keyof MarkNames, lower = false): string | null {
    const value = readValue(fd, name, this.names[mark], lower)
    return typeof value === 'string' ? value : null
  }

  /** Sets a mark. */
  set(fd: number, name: ByteString, mark: keyof MarkNames, value: string): Result {
    const bytes = Buffer.from(value, 'latin1')
    const attr = this.names[mark]
    const first = setxattrat(fd, name, attr, bytes, 0)
    if (first !== -E.EACCES) return first
    return withRight(fd, name, OWNER_WRITE, () => setxattrat(fd, name, attr, bytes, 0))
  }

  /** Whether objects other than files and folders can bear marks: `user.` is not for them, xattr(7). */
  get onAll(): boolean {
    return this.names.prefix === TRUSTED_PREFIX
  }

  /** Whether marks can be written at all, here and by whoever mounts (kernel: ovl_make_workdir). */
  canSet(fd: number): boolean {
    if (this.set(fd, '', 'opaque', '0') < 0) return false
    removexattrat(fd, '', this.names.opaque)
    return true
  }

  /**
   * Marks a folder under which lower layers would show (kernel: ovl_set_opaque). Where no attribute can be
   * written, by a file in it, as container layers have it.
   */
  setOpaque(fd: number, name: ByteString): Result {
    const result = this.set(fd, name, 'opaque', 'y')
    return isXattrRefusal(result) ? markDotOpaque(fd, name) : result
  }

  /** Lets the folder have whiteouts by xattr. The same mark says that it is opaque, which it then stays. */
  setXattrWhiteouts(fd: number): Result {
    const result = setxattrat(fd, '', this.names.opaque, Buffer.from('x'), XATTR_CREATE)
    return result === -E.EEXIST ? 0 : result
  }

  /**
   * Whether an xattr name is the union's own and not to be shown. Escaped names (`overlay.overlay.X`,
   * kernel: ovl_is_escaped_xattr) are a user's.
   */
  isPrivate(attr: ByteString): boolean {
    return attr.startsWith(this.names.prefix) && !this.isEscaped(attr)
  }

  isEscaped(attr: ByteString): boolean {
    return attr.startsWith(this.names.prefix + 'overlay.')
  }

  /** What a user's name is stored as: `PREFIX X` becomes `PREFIX overlay. X`. */
  escape(attr: ByteString): ByteString {
    return attr.startsWith(this.names.prefix)
      ? this.names.prefix + 'overlay.' + attr.slice(this.names.prefix.length)
      : attr
  }

  unescape(attr: ByteString): ByteString {
    return this.isEscaped(attr)
      ? this.names.prefix + attr.slice(this.names.prefix.length + 'overlay.'.length)
      : attr
  }
}

function readValue(
  fd: number,
  name: ByteString,
  attr: ByteString,
  lower: boolean,
): string | Result {
  let buffer = smallValue
  let n = getxattrat(fd, name, attr, buffer)
  if (n === -E.ERANGE) n = getxattrat(fd, name, attr, (buffer = wholeValue))
  // `user.` attributes take the right to read; a lower object's mode is not touched for it.
  if (n === -E.EACCES && !lower) {
    buffer = wholeValue
    n = withRight(fd, name, OWNER_READ, () => getxattrat(fd, name, attr, wholeValue))
  }
  return n < 0 ? n : buffer.latin1Slice(0, n)
}

/** Errors of setxattr which mean that the file system will never take this one. */
export function isXattrRefusal(result: Result): boolean {
  return result === -E.EOPNOTSUPP || result === -E.EPERM || result === -E.ENOSYS
}

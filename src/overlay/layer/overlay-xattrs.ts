/**
 * The overlay xattrs of real objects, as of kernel overlayfs. A single listxattr finds which of
 * them an object has. Only an existing xattr costs a further call.
 */

import { XATTR_CREATE } from '../../sys/constants.js'
import { E, isPassing } from '../../sys/errno.js'
import { getxattrat, listxattrat, removexattrat, setxattrat } from '../../sys/xattr.js'
import { OWNER_READ, OWNER_WRITE, withOwnerAccess } from '../owner/owner-access.js'
import type { ByteString, Result } from '../ops.js'
import { createOpaqueFile } from './opaque-file.js'

/**
 * The part of the name after `trusted.` or `user.`: the kernel's, or this program's own for an
 * upper layer on a file system that does not keep the kernel's.
 */
export type XattrInfix = 'overlay.' | 'tsoverlay.'
/** The opaque xattr of fuse-overlayfs 1.x. */
const FUSE_OVERLAYFS_OPAQUE = 'user.fuseoverlayfs.opaque'

/** The bits in the result of `OverlayXattrs.read`. */
export const XattrBit = {
  OPAQUE: 1,
  REDIRECT: 2,
  METACOPY: 4,
  ORIGIN: 8,
  IMPURE: 16,
  WHITEOUT: 32,
  PROTATTR: 64,
  NLINK: 128,
  ORDINARY: 256,
} as const

/**
 * The xattrs that are also read under another prefix, in lower layers, if `user.` is the union's
 * prefix. They only hide names. `trusted.` xattrs can be written by root only. If `trusted.` is the
 * union's prefix, `user.` xattrs are ignored, as the kernel does: any user with write access to an
 * object could set them.
 */
const HIDING = XattrBit.OPAQUE | XattrBit.WHITEOUT

const XATTR_BITS: Record<string, number> = {
  opaque: XattrBit.OPAQUE,
  redirect: XattrBit.REDIRECT,
  metacopy: XattrBit.METACOPY,
  origin: XattrBit.ORIGIN,
  impure: XattrBit.IMPURE,
  whiteout: XattrBit.WHITEOUT,
  protattr: XattrBit.PROTATTR,
  nlink: XattrBit.NLINK,
  ordinary: XattrBit.ORDINARY,
}

// The kernel allocates and clears as much memory as the buffer is long. Try small buffers first.
const smallList = Buffer.allocUnsafeSlow(512)
const wholeList = Buffer.allocUnsafeSlow(65536)
const smallValue = Buffer.allocUnsafeSlow(256)
/** An empty buffer asks for the length only. */
const nothing = Buffer.alloc(0)
const wholeValue = Buffer.allocUnsafeSlow(65536)

/** The xattr names with a given prefix. */
export class OverlayXattrNames {
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
  /**
   * The object's name begins with `.wh.`, but it is not a whiteout
   * (whiteout.ts:isActiveDotWhiteout). Only tsoverlay reads this xattr.
   */
  readonly ordinary: ByteString

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
    this.ordinary = prefix + 'ordinary'
  }
}

/**
 * Reads and writes overlay xattrs with a single prefix. In lower layers it also reads xattrs that
 * hide names under other prefixes, if those are at least as trusted.
 */
export class OverlayXattrs {
  readonly names: OverlayXattrNames
  /** The object of the last `read` has no extended attribute at all. */
  hasNone = false
  readonly infix: XattrInfix
  /** Null if `trusted.` is the prefix. */
  readonly #other: OverlayXattrNames | null
  /** A `user.` xattr of lower layers that is ignored if `trusted.` is the prefix. */
  readonly #userOpaque: ByteString
  #onIgnored: (() => void) | null

  /**
   * @param onIgnored is called once, at the first ignored xattr of a lower layer that would hide
   *   names
   */
  constructor(
    userxattr: boolean,
    onIgnored: (() => void) | null = null,
    space: XattrInfix = 'overlay.',
  ) {
    this.infix = space
    const trusted = 'trusted.' + space
    const user = 'user.' + space
    this.names = new OverlayXattrNames(userxattr ? user : trusted)
    this.#other = userxattr ? new OverlayXattrNames(trusted) : null
    this.#userOpaque = user + 'opaque'
    this.#onIgnored = onIgnored
  }

  /**
   * The overlay xattrs of the object, as bits of `XattrBit`, or -errno. 0 if the file system has no
   * xattrs.
   */
  read(fd: number, name: ByteString, lower: boolean): Result {
    let buffer = smallList
    let length = listxattrat(fd, name, buffer)
    if (length === -E.ERANGE) length = listxattrat(fd, name, (buffer = wholeList))
    this.hasNone = length === 0
    if (length <= 0) return isNone(length) ? 0 : length
    const list = buffer.latin1Slice(0, length)
    if (!list.includes('overlay')) return 0
    let bits = 0
    for (const attr of list.split('\0')) {
      if (attr.startsWith(this.names.prefix))
        bits |= XATTR_BITS[attr.slice(this.names.prefix.length)] ?? 0
      else if (lower) bits |= this.#hidingBit(attr)
    }
    return bits
  }

  #hidingBit(attr: ByteString): number {
    const other = this.#other
    if (other !== null) {
      if (attr === FUSE_OVERLAYFS_OPAQUE) return XattrBit.OPAQUE
      if (!attr.startsWith(other.prefix)) return 0
      return (XATTR_BITS[attr.slice(other.prefix.length)] ?? 0) & HIDING
    }
    if (attr === this.#userOpaque || attr === FUSE_OVERLAYFS_OPAQUE) {
      this.#onIgnored?.()
      this.#onIgnored = null
    }
    return 0
  }

  /** Whether an empty regular file has the whiteout xattr: 1 or 0, or -errno. */
  isWhiteout(fd: number, name: ByteString, lower: boolean): Result {
    const own = hasAttribute(fd, name, this.names.whiteout)
    const other = lower ? this.#other : null
    return own !== 0 || other === null ? own : hasAttribute(fd, name, other.whiteout)
  }

  /**
   * The value of the opaque xattr (`y` or `x`), '' if there is none, or -errno. An unprivileged
   * mounter may not be allowed to read it on a lower directory. It counts as `y` then: showing
   * names that may be deleted would be worse.
   */
  opaque(fd: number, name: ByteString, lower: boolean): string | Result {
    const attributes = [this.names.opaque]
    if (lower && this.#other !== null) attributes.push(this.#other.opaque, FUSE_OVERLAYFS_OPAQUE)
    for (const attr of attributes) {
      const value = readValue(fd, name, attr, lower)
      if (value === -E.EACCES) return 'y'
      if (typeof value === 'string') return value
      if (!isNone(value)) return value
    }
    return ''
  }

  /**
   * The value of an overlay xattr, one character per byte, null if there is none, or -errno. An
   * unreadable xattr of a lower layer counts as missing.
   */
  value(
    fd: number,
    name: ByteString,
    xattr: keyof OverlayXattrNames,
    lower = false,
  ): string | Result | null {
    const value = readValue(fd, name, this.names[xattr], lower)
    if (typeof value === 'string') return value
    return isNone(value) || (lower && value === -E.EACCES) ? null : value
  }

  /** Sets an overlay xattr. */
  set(fd: number, name: ByteString, xattr: keyof OverlayXattrNames, value: string): Result {
    const bytes = Buffer.from(value, 'latin1')
    const attr = this.names[xattr]
    const first = setxattrat(fd, name, attr, bytes, 0)
    if (first !== -E.EACCES) return first
    return withOwnerAccess(fd, name, OWNER_WRITE, () => setxattrat(fd, name, attr, bytes, 0))
  }

  /**
   * Whether objects other than files and directories can have overlay xattrs. `user.` xattrs are
   * not allowed on them (xattr(7)), and fuse-overlayfs reads the xattrs of a symlink from its
   * target.
   */
  get fitsAllTypes(): boolean {
    return this.isTrusted && this.infix === 'overlay.'
  }

  /** Whether `trusted.` is the prefix. */
  get isTrusted(): boolean {
    return this.#other === null
  }

  /**
   * Whether overlay xattrs can be written by the mounter (kernel: ovl_make_workdir), and can be
   * read back: another union may accept them silently and hide them.
   *
   * @returns 1 or 0, or -errno after a temporary error
   */
  canSet(fd: number): Result {
    const set = this.set(fd, '', 'opaque', '0')
    if (set < 0) return isPassing(set) ? set : 0
    const read = this.value(fd, '', 'opaque')
    const removed = removexattrat(fd, '', this.names.opaque)
    if (typeof read === 'number' && isPassing(read)) return read
    return isPassing(removed) ? removed : Number(removed >= 0 && read === '0')
  }

  /**
   * Makes a directory opaque (kernel: ovl_set_opaque). If the file system refuses the xattr, it
   * creates the opaque file of container layers.
   */
  setOpaque(fd: number, name: ByteString): Result {
    const result = this.set(fd, name, 'opaque', 'y')
    return isXattrRefusal(result) ? createOpaqueFile(fd, name) : result
  }

  /**
   * Allows whiteouts by xattr in the directory. The same xattr holds the opaque flag, so an
   * existing value is kept.
   */
  setXattrWhiteouts(fd: number): Result {
    const result = setxattrat(fd, '', this.names.opaque, Buffer.from('x'), XATTR_CREATE)
    return result === -E.EEXIST ? 0 : result
  }

  /**
   * Whether the xattr belongs to the union and is hidden from callers. Escaped names
   * (`overlay.overlay.X`, kernel: ovl_is_escaped_xattr) belong to callers.
   */
  isPrivate(attr: ByteString): boolean {
    return attr.startsWith(this.names.prefix) && !this.isEscaped(attr)
  }

  isEscaped(attr: ByteString): boolean {
    return attr.startsWith(this.names.prefix + 'overlay.')
  }

  /**
   * Whether this xattr on the root would make the next mount choose the other infix
   * (choose-xattr-names.ts).
   */
  changesInfix(attr: ByteString): boolean {
    return this.infix === 'overlay.' && /^(?:trusted|user)\.tsoverlay\./.test(attr)
  }

  /** The stored name of a caller's xattr: `PREFIX X` becomes `PREFIX overlay. X`. */
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
  // Reading `user.` xattrs requires read permission. The mode of a lower object is never changed
  // for that.
  if (n === -E.EACCES && !lower) {
    buffer = wholeValue
    n = withOwnerAccess(fd, name, OWNER_READ, () => getxattrat(fd, name, attr, wholeValue))
  }
  return n < 0 ? n : buffer.latin1Slice(0, n)
}

function hasAttribute(fd: number, name: ByteString, attr: ByteString): Result {
  const result = getxattrat(fd, name, attr, nothing)
  if (result >= 0 || result === -E.ERANGE) return 1
  const none = result === -E.ENODATA || result === -E.EOPNOTSUPP || result === -E.EACCES
  return none || result === -E.EPERM ? 0 : result
}

/** Success with an empty result, or an error that means "no such xattr" or "no xattrs here". */
const isNone = (result: Result): boolean =>
  result === 0 || result === -E.ENODATA || result === -E.EOPNOTSUPP || result === -E.ENOSYS

/** Errors of setxattr(2) that mean that the file system never accepts this xattr. */
export function isXattrRefusal(result: Result): boolean {
  return result === -E.EOPNOTSUPP || result === -E.EPERM || result === -E.ENOSYS
}

/**
 * The union's own marks on real objects: the `overlay.*` xattrs of kernel overlayfs. Which marks an
 * object bears is learnt with one listxattr; only a mark that is there costs another call.
 */

import { XATTR_CREATE } from '../../sys/constants.js'
import { E, isPassing } from '../../sys/errno.js'
import { getxattrat, listxattrat, removexattrat, setxattrat } from '../../sys/xattr.js'
import { OWNER_READ, OWNER_WRITE, withOwnerAccess } from '../owner/owner-access.js'
import type { ByteString, Result } from '../ops.js'
import { createOpaqueFile } from './opaque-file.js'

/**
 * Whose names they are: the kernel's, or this program's, for an upper layer where the former are
 * not kept.
 */
export type XattrInfix = 'overlay.' | 'tsoverlay.'
/** fuse-overlayfs 1.x marks opaque directories with this one. */
const FUSE_OVERLAYFS_OPAQUE = 'user.fuseoverlayfs.opaque'

/** Bits of what `readMarks` answers. */
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
 * What is read under another prefix as well, in lower layers, and only where `user.` is the prefix:
 * what hides. `trusted.` is for root to write. Where it is the prefix, a `user.` mark says nothing,
 * as to the kernel: any user who may write to an object could have set it.
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

// The kernel clears as much memory as a buffer is long: small ones first.
const smallList = Buffer.allocUnsafeSlow(512)
const wholeList = Buffer.allocUnsafeSlow(65536)
const smallValue = Buffer.allocUnsafeSlow(256)
/** Asks for the length alone. */
const nothing = Buffer.alloc(0)
const wholeValue = Buffer.allocUnsafeSlow(65536)

/** The xattr names of one prefix. */
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
   * Its name begins with `.wh.`, and hides nothing (whiteout.ts:isActiveDotWhiteout). No other union knows
   * this one.
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
 * Reads marks: under one prefix, and in lower layers those that hide under others that are no less
 * trusted.
 */
export class OverlayXattrs {
  readonly names: OverlayXattrNames
  /** What was read last bears no extended attribute at all. */
  hasNone = false
  readonly infix: XattrInfix
  /** Null: `trusted.` is the prefix. */
  readonly #other: OverlayXattrNames | null
  /** A mark of lower layers that is not read where `trusted.` is the prefix. */
  readonly #users: ByteString
  #skipped: (() => void) | null

  /**
   * @param skipped is told once that a lower layer has a mark which is not read and would hide
   *   something
   */
  constructor(
    userxattr: boolean,
    skipped: (() => void) | null = null,
    space: XattrInfix = 'overlay.',
  ) {
    this.infix = space
    const trusted = 'trusted.' + space
    const user = 'user.' + space
    this.names = new OverlayXattrNames(userxattr ? user : trusted)
    this.#other = userxattr ? new OverlayXattrNames(trusted) : null
    this.#users = user + 'opaque'
    this.#skipped = skipped
  }

  /**
   * Which marks the object bears (bits of `Mark`); 0 also where xattrs are not supported. Or
   * -errno.
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
      else if (lower) bits |= this.#foreign(attr)
    }
    return bits
  }

  #foreign(attr: ByteString): number {
    const other = this.#other
    if (other !== null) {
      if (attr === FUSE_OVERLAYFS_OPAQUE) return XattrBit.OPAQUE
      if (!attr.startsWith(other.prefix)) return 0
      return (XATTR_BITS[attr.slice(other.prefix.length)] ?? 0) & HIDING
    }
    if (attr === this.#users || attr === FUSE_OVERLAYFS_OPAQUE) {
      this.#skipped?.()
      this.#skipped = null
    }
    return 0
  }

  /** Whether an empty regular file bears `overlay.whiteout`: 1 or 0, or -errno. */
  isWhiteout(fd: number, name: ByteString, lower: boolean): Result {
    const own = hasAttribute(fd, name, this.names.whiteout)
    const other = lower ? this.#other : null
    return own !== 0 || other === null ? own : hasAttribute(fd, name, other.whiteout)
  }

  /**
   * The value of `overlay.opaque` (`y` or `x`), or '' for none. One that is there but may not be
   * read (of a lower directory, by an ordinary user) counts as `y`: what may be deleted is not
   * shown. Or -errno.
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
   * A mark's value as bytes in a string, or null for none; or -errno. One of a lower layer that may
   * not be read is none.
   */
  value(
    fd: number,
    name: ByteString,
    mark: keyof OverlayXattrNames,
    lower = false,
  ): string | Result | null {
    const value = readValue(fd, name, this.names[mark], lower)
    if (typeof value === 'string') return value
    return isNone(value) || (lower && value === -E.EACCES) ? null : value
  }

  /** Sets a mark. */
  set(fd: number, name: ByteString, mark: keyof OverlayXattrNames, value: string): Result {
    const bytes = Buffer.from(value, 'latin1')
    const attr = this.names[mark]
    const first = setxattrat(fd, name, attr, bytes, 0)
    if (first !== -E.EACCES) return first
    return withOwnerAccess(fd, name, OWNER_WRITE, () => setxattrat(fd, name, attr, bytes, 0))
  }

  /**
   * Whether objects other than files and directories can bear marks: `user.` is not for them,
   * xattr(7), and fuse-overlayfs gives the attributes of a symlink to what it points to.
   */
  get fitsAllTypes(): boolean {
    return this.isTrusted && this.infix === 'overlay.'
  }

  /** Whether `trusted.` is the prefix. */
  get isTrusted(): boolean {
    return this.#other === null
  }

  /**
   * Whether marks can be written at all, here and by whoever mounts (kernel: ovl_make_workdir), and
   * are read back: another union may take them without a word and keep them to itself.
   *
   * @returns 1 or 0; or -errno, where that can't be found out now
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
   * Marks a directory under which lower layers would show (kernel: ovl_set_opaque). Where no
   * attribute can be written, by a file in it, as container layers have it.
   */
  setOpaque(fd: number, name: ByteString): Result {
    const result = this.set(fd, name, 'opaque', 'y')
    return isXattrRefusal(result) ? createOpaqueFile(fd, name) : result
  }

  /**
   * Lets the directory have whiteouts by xattr. The same mark says that it is opaque, which it then
   * stays.
   */
  setXattrWhiteouts(fd: number): Result {
    const result = setxattrat(fd, '', this.names.opaque, Buffer.from('x'), XATTR_CREATE)
    return result === -E.EEXIST ? 0 : result
  }

  /**
   * Whether an xattr name is the union's own and not to be shown. Escaped names
   * (`overlay.overlay.X`, kernel: ovl_is_escaped_xattr) are a user's.
   */
  isPrivate(attr: ByteString): boolean {
    return attr.startsWith(this.names.prefix) && !this.isEscaped(attr)
  }

  isEscaped(attr: ByteString): boolean {
    return attr.startsWith(this.names.prefix + 'overlay.')
  }

  /**
   * Whether an attribute of the root would tell the next mount that marks have other names
   * (choose-xattr-names.ts).
   */
  changesInfix(attr: ByteString): boolean {
    return this.infix === 'overlay.' && /^(?:trusted|user)\.tsoverlay\./.test(attr)
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

/** 0, or an error which means that there is no such attribute, or there are none at all. */
const isNone = (result: Result): boolean =>
  result === 0 || result === -E.ENODATA || result === -E.EOPNOTSUPP || result === -E.ENOSYS

/** Errors of setxattr which mean that the file system will never take this one. */
export function isXattrRefusal(result: Result): boolean {
  return result === -E.EOPNOTSUPP || result === -E.EPERM || result === -E.ENOSYS
}

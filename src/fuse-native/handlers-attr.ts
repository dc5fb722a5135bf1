/** Handlers for attributes. Part of the table in handlers.ts. */

import { ACL_ACCESS, ACL_DEFAULT } from '../overlay/owner/acl.js'
import { SetAttrValid as V, type ByteString, type Result } from '../overlay/ops.js'
import { E } from '../sys/errno.js'
import { statfsOf, statOf } from './attrs.js'
import { isHidden } from './hidden.js'
import { toBytes, toText } from './names.js'
import type { Dentry } from './paths.js'
import type { Operations } from './package.js'
import type { Session } from './session.js'

type Attributes = Pick<
  Operations,
  'getattr' | 'chmod' | 'chown' | 'truncate' | 'ftruncate' | 'readlink' | 'statfs'
>
type Xattrs = Required<Pick<Operations, 'setxattr' | 'removexattr'>>

const MAX = Number.MAX_SAFE_INTEGER
/** The id of chown(2) that means no change. */
const SAME_ID = 0xffff_ffff
const TARGET_MAX = 4096

/**
 * libfuse counts the name that it gave to a removed file as a link and subtracts it again
 * (lib/fuse.c:fuse_lib_getattr). The union has no such link, so it is added here.
 */
const countHidden = (s: Session, dentry: Dentry | Result): void => {
  if (typeof dentry !== 'number' && dentry.hidden && s.attr.nlink > 0) s.attr.nlink++
}

export const getattr = (s: Session, path: string): Result => {
  const dentry = s.find(path)
  if (typeof dentry === 'number') return dentry
  const r = s.counted(s.ops.getattr(dentry.id, 0, s.attr))
  countHidden(s, dentry)
  return r
}

/** getattr of an open file. */
export const fgetattr = (s: Session, path: string, fh: number): Result => {
  const id = s.fileNode(fh)
  if (id === undefined) return getattr(s, path)
  const r = s.counted(s.ops.getattr(id, fh, s.attr))
  if (isHidden(path)) countHidden(s, s.find(path))
  return r
}

/** Applies `s.setAttr` to the file at a path, or to an open file. */
const setattr = (s: Session, path: string, fh = 0): Result => {
  const open = s.fileNode(fh)
  const id = open ?? s.node(path)
  if (id < 0) return id
  s.setAttr.fh = fh
  if (open !== undefined) s.setAttr.valid |= V.FH
  return s.ops.setattr(id, s.setAttr, s.attr)
}

const resize = (s: Session, path: string, size: number, fh?: number): Result => {
  if (size > MAX) return -E.EFBIG
  s.setAttr.valid = V.SIZE
  s.setAttr.size = size
  return setattr(s, path, fh)
}

const seconds = (ms: number): number => Math.floor(ms / 1000)

/** Sets both times, in milliseconds. */
export const utimens = (s: Session, path: string, atime: number, mtime: number): Result => {
  const { setAttr } = s
  setAttr.valid = V.ATIME | V.MTIME
  setAttr.atimeSec = seconds(atime)
  setAttr.atimeNsec = (atime - setAttr.atimeSec * 1000) * 1_000_000
  setAttr.mtimeSec = seconds(mtime)
  setAttr.mtimeNsec = (mtime - setAttr.mtimeSec * 1000) * 1_000_000
  return setattr(s, path)
}

export const attrHandlers = (s: Session): Attributes => {
  const target = Buffer.alloc(TARGET_MAX)
  return {
    getattr(path, done) {
      s.run(
        'getattr',
        () => getattr(s, path),
        r => (r < 0 ? done(r) : done(0, statOf(s.attr, s.inos))),
      )
    },
    chmod(path, mode, done) {
      const call = (): Result => {
        s.setAttr.valid = V.MODE
        s.setAttr.mode = mode & 0o7777
        return setattr(s, path)
      }
      s.run('chmod', call, done)
    },
    chown(path, uid, gid, done) {
      const call = (): Result => {
        s.setAttr.valid = (uid === SAME_ID ? 0 : V.UID) | (gid === SAME_ID ? 0 : V.GID)
        s.setAttr.uid = uid
        s.setAttr.gid = gid
        return setattr(s, path)
      }
      s.run('chown', call, done)
    },
    truncate(path, size, done) {
      s.run('truncate', () => resize(s, path, size), done)
    },
    ftruncate(path, fd, size, done) {
      s.run('ftruncate', () => resize(s, path, size, fd), done)
    },
    readlink(path, done) {
      let text = ''
      const call = (): Result => {
        const id = s.node(path)
        if (id < 0) return id
        const r = s.ops.readlink(id, target, 0)
        if (r < 0) return r
        const read = toText(target.latin1Slice(0, r))
        if (read === undefined) return -E.EILSEQ
        text = read
        return 0
      }
      s.run('readlink', call, r => (r < 0 ? done(r) : done(0, text)))
    },
    statfs(_path, done) {
      s.run(
        'statfs',
        () => s.ops.statfs(s.statfs),
        r => (r < 0 ? done(r) : done(0, statfsOf(s.statfs))),
      )
    },
  }
}

/**
 * libfuse 2 does not request FUSE_POSIX_ACL, so the kernel checks only the mode. ACLs must be
 * refused because they would not be enforced: their mask is stored in the group bits, so the group
 * would get more rights than the ACL grants.
 */
const isAcl = (name: ByteString): boolean => name === ACL_ACCESS || name === ACL_DEFAULT

/** Calls back with the node and the name's bytes, unless the name is refused. */
const withName = (
  s: Session,
  path: string,
  name: string,
  call: (id: number, bytes: ByteString) => Result,
): Result => {
  const bytes = toBytes(name)
  if (bytes === undefined) return -E.EILSEQ
  if (isAcl(bytes)) return -E.EOPNOTSUPP
  const id = s.node(path)
  return id < 0 ? id : call(id, bytes)
}

const NO_ROOM = Buffer.alloc(0)

/**
 * Reads the value into `into` and returns its length. With an empty buffer it returns only the
 * length.
 */
export const getxattr = (s: Session, path: string, name: string, into: Buffer): Result => {
  const room = into.length
  return withName(s, path, name, (id, bytes) => {
    const r = s.ops.getxattr(id, bytes, room === 0 ? NO_ROOM : into, 0, room)
    return room > 0 && r > room ? -E.ERANGE : r
  })
}

/** The maximum length of a list in bytes (XATTR_LIST_MAX). */
const LIST_MAX = 65_536

/** Writes the names without those of ACLs, each followed by a NUL. Returns their length. */
export const listxattr = (s: Session, path: string, into: Buffer): Result => {
  const id = s.node(path)
  if (id < 0) return id
  const list = Buffer.allocUnsafe(LIST_MAX)
  // The caller is unknown, so root is assumed. If names were hidden from root, copies would lose
  // the xattrs; and reading such an xattr requires root anyway.
  const r = s.ops.listxattr(id, list, 0, LIST_MAX, true)
  if (r < 0) return r
  const names = list.latin1Slice(0, r).split('\0').slice(0, -1)
  const shown = Buffer.from(
    names
      .filter(name => !isAcl(name))
      .map(name => `${name}\0`)
      .join(''),
    'latin1',
  )
  if (into.length === 0) return shown.length
  if (shown.length > into.length) return -E.ERANGE
  shown.copy(into)
  return shown.length
}

export const xattrHandlers = (s: Session): Xattrs => ({
  setxattr(path, name, value, _position, flags, done) {
    const call = (): Result =>
      withName(s, path, name, (id, bytes) => s.ops.setxattr(id, bytes, value, flags, false))
    s.run('setxattr', call, done)
  },
  removexattr(path, name, done) {
    const call = (): Result => withName(s, path, name, (id, bytes) => s.ops.removexattr(id, bytes))
    s.run('removexattr', call, done)
  },
})

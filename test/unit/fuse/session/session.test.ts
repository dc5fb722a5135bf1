import * as fc from 'fast-check'
import t from 'tap'
import { E } from '../../../../src/sys/errno.js'
import { Entry, Pending, type Attr } from '../../../../src/overlay/ops.js'
import { handlers } from '../../../../src/fuse/session/handlers.js'
import { NOTHING, PARKED } from '../../../../src/fuse/session/session.js'
import {
  attrBytes,
  cstr,
  entryBytes,
  errorReply,
  GID,
  join,
  NODE,
  OP,
  PID,
  reply,
  request,
  s32,
  u16,
  u32,
  u64,
  UID,
  UNIQUE,
  zeros,
} from '../../../helpers/frames.js'
import { initRequest, load, recordingLog, rig, type Rig } from '../support.js'

const node = Number(NODE)
const caller = (umask: number) => ({ uid: UID, gid: GID, pid: PID, umask })

/** struct fuse_attr_out */
const attrOut = (sec: number): Buffer =>
  join(
    u64(sec), // attr_valid
    u32(0), // attr_valid_nsec
    u32(0), // dummy
    attrBytes(),
  )
/** struct fuse_open_out */
const openOut = (flags: number, backingId = 0): Buffer =>
  join(
    u64(0x77), // fh
    u32(flags), // open_flags
    s32(backingId), // backing_id
  )
/** struct fuse_sx_time */
const sxTime = (sec: Buffer, nsec: Buffer): Buffer => join(sec, nsec, s32(0))

const KEEP_CACHE = 2

interface Case {
  op: number
  body: Buffer
  /** The resulting call of the union; none: the session answers alone. */
  call?: unknown[]
  /** The reply's body, an errno, or 'none'. */
  out: Buffer | number | 'none'
  set?: (rig: Rig) => void
  io?: 'cached' | 'passthrough'
  /** 31: before the structures were extended. */
  minor?: number
  /** Bytes at the body's end that may be missing. */
  optional?: number
}

const returns =
  (name: string, n: number) =>
  ({ ops }: Rig): void => {
    Object.assign(ops.results, { [name]: n })
  }

/** struct fuse_setattr_in */
const setattrIn = (valid: number, size: number | bigint = 0x12_0000_0001): Buffer =>
  join(
    u32(valid), // valid
    u32(0), // padding
    u64(0x88), // fh
    u64(size), // size
    u64(-1), // lock_owner
    u64(-2), // atime
    u64(3), // mtime
    u64(4), // ctime
    u32(5), // atimensec
    u32(6), // mtimensec
    u32(7), // ctimensec
    u32(0o104755), // mode
    u32(0), // unused4
    u32(1001), // uid
    u32(0xffff_fffe), // gid
    u32(0), // unused5
  )
const setattrCall = (valid: number, fh: number): unknown[] => [
  'setattr',
  node,
  {
    valid,
    mode: 0o4755,
    uid: 1001,
    gid: 0xffff_fffe,
    size: 0x12_0000_0001,
    atimeSec: -2,
    atimeNsec: 5,
    mtimeSec: 3,
    mtimeNsec: 6,
    fh,
  },
]

/** struct fuse_read_in, which READDIR has as well */
const readIn = (offset: number | bigint, size: number): Buffer =>
  join(
    u64(0x77), // fh
    u64(offset), // offset
    u32(size), // size
    u32(0), // read_flags
    u64(0), // lock_owner
    u32(0), // flags
    u32(0), // padding
  )
/** struct fuse_write_in and the data */
const writeIn = (offset: number | bigint, size: number, flags: number, data: string): Buffer =>
  join(
    u64(0x77), // fh
    u64(offset), // offset
    u32(size), // size
    u32(flags), // write_flags
    u64(0), // lock_owner
    u32(0), // flags
    u32(0), // padding
    Buffer.from(data, 'latin1'),
  )
/** struct fuse_release_in */
const releaseIn = join(
  u64(0x77), // fh
  u32(0o100002), // flags
  u32(0), // release_flags
  u64(0), // lock_owner
)
/** struct fuse_create_in and the name */
const createIn = (flags: number): Buffer =>
  join(
    u32(flags), // flags
    u32(0o102750), // mode
    u32(0o27), // umask
    u32(0), // open_flags
    cstr('new'),
  )
/** struct fuse_copy_file_range_in */
const copyIn = (offIn: number | bigint, offOut: number | bigint, length: number | bigint): Buffer =>
  join(
    u64(0x77), // fh_in
    u64(offIn), // off_in
    u64(0x43), // nodeid_out
    u64(0x78), // fh_out
    u64(offOut), // off_out
    u64(length), // len
    u64(0), // flags
  )
/** struct fuse_ioctl_in and the data */
const ioctlIn = (cmd: number, outSize: number, data = zeros(0)): Buffer =>
  join(
    u64(0x77), // fh
    u32(0), // flags
    u32(cmd), // cmd
    u64(0xbfff_0000), // arg
    u32(data.length), // in_size
    u32(outSize), // out_size
    data,
  )
/** struct fuse_ioctl_out and the data */
const ioctlOut = (data = zeros(0)): Buffer =>
  join(
    s32(0), // result
    u32(0), // flags
    u32(0), // in_iovs
    u32(0), // out_iovs
    data,
  )
const FS_IOC_GETFLAGS = 0x80086601
const FS_IOC_SETFLAGS = 0x40086602
const FS_IOC_FSGETXATTR = 0x801c581f
const FS_IOC_FSSETXATTR = 0x401c5820
/** struct fsxattr */
const fsxattr = (xflags: number, extsize = 0, projid = 0): Buffer =>
  join(
    u32(xflags), // fsx_xflags
    u32(extsize), // fsx_extsize
    u32(0), // fsx_nextents
    u32(projid), // fsx_projid
    u32(0), // fsx_cowextsize
    zeros(8), // fsx_pad
  )

/** struct fuse_dirent, the name, padding */
const dirent = (name: string, ino: number | bigint, type: number, cookie: number): Buffer => {
  const bytes = Buffer.from(name, 'latin1')
  return join(
    u64(ino), // ino
    u64(cookie), // off
    u32(bytes.length), // namelen
    u32(type), // type
    bytes,
    zeros((8 - (bytes.length % 8)) % 8),
  )
}
const LISTED = [
  dirent('.', 1, 4, 1),
  dirent('..', 2, 4, 2),
  dirent('a', 0xfedc_ba98_7654_3210n, 8, 3),
  dirent('exactly8', 77, 10, 0x1_0000_0004),
  dirent('\xff\xfe', 78, 2, 0x1_0000_0005),
] as const
/** struct fuse_direntplus: an entry of zeros has no node. */
const LISTED_PLUS = [
  join(zeros(128), LISTED[0]),
  join(zeros(128), LISTED[1]),
  join(entryBytes(1000, 1000, 0x51), LISTED[2]),
  join(entryBytes(1000, 1000, 0x52), LISTED[3]),
  join(zeros(128), LISTED[4]),
] as const

const cases: Record<string, Case> = {
  lookup: {
    op: OP.LOOKUP,
    body: cstr('f\xffo'),
    call: ['lookup', node, 'f\xffo'],
    out: entryBytes(1000, 1000),
  },
  'lookup, negative': {
    op: OP.LOOKUP,
    body: cstr('none'),
    call: ['lookup', node, 'none'],
    set: ({ ops }) => void (ops.node = 0),
    // nodeid 0, generation, entry_valid, and nothing else
    out: join(u64(0), u64(0), u64(1000), zeros(104)),
  },
  'lookup, failing': {
    op: OP.LOOKUP,
    body: cstr('x'),
    call: ['lookup', node, 'x'],
    set: returns('lookup', -E.ENAMETOOLONG),
    out: E.ENAMETOOLONG,
  },
  'lookup of dot': { op: OP.LOOKUP, body: cstr('.'), out: E.EINVAL },
  'lookup of dot dot': { op: OP.LOOKUP, body: cstr('..'), out: E.EINVAL },
  'lookup of a path': { op: OP.LOOKUP, body: cstr('a/b'), out: E.EINVAL },
  'lookup of nothing': { op: OP.LOOKUP, body: cstr(''), out: E.EINVAL },
  forget: {
    op: OP.FORGET,
    body: u64(0x1_0000_0002),
    call: ['forget', node, 0x1_0000_0002],
    out: 'none',
  },
  'batch forget': {
    op: OP.BATCH_FORGET,
    body: join(
      u32(2), // count
      u32(0), // dummy
      u64(5), // nodeid
      u64(6), // nlookup
      u64(7), // nodeid
      u64(8), // nlookup
    ),
    call: ['forget', 7, 8],
    out: 'none',
    optional: 32,
  },
  getattr: {
    op: OP.GETATTR,
    // getattr_flags, dummy, fh
    body: join(u32(0), u32(0), u64(0x77)),
    call: ['getattr', node, 0],
    out: attrOut(1000),
  },
  'getattr of a handle': {
    op: OP.GETATTR,
    body: join(u32(1), u32(0), u64(0x77)),
    call: ['getattr', node, 0x77],
    out: attrOut(1000),
  },
  statx: {
    op: OP.STATX,
    body: join(
      u32(1), // getattr_flags
      u32(0), // reserved
      u64(0x77), // fh
      u32(0), // sx_flags
      u32(0xfff), // sx_mask
    ),
    call: ['getattr', node, 0x77],
    out: join(
      u64(1000), // attr_valid
      u32(0), // attr_valid_nsec
      u32(0), // flags
      zeros(16), // spare
      u32(0xfff), // mask
      u32(4096), // blksize
      u64(0x10), // attributes
      u32(7), // nlink
      u32(0xffff_fffe), // uid
      u32(9), // gid
      u16(0o100644), // mode
      u16(0), // spare
      u64(0xfedc_ba98_7654_3210n), // ino
      u64(0x12_3456_789a), // size
      u64(0x1f2f3f), // blocks
      u64(0x30), // attributes_mask
      sxTime(u64(-1), u32(1)), // atime
      sxTime(u64(-5), u32(6)), // btime
      sxTime(u64(3), u32(4)), // ctime
      sxTime(u64(0x1_0000_0002), u32(999_999_999)), // mtime
      u32(0xabc), // rdev_major
      u32(0x12345), // rdev_minor
      zeros(8), // dev
      zeros(112), // spare
    ),
  },
  'setattr, everything': {
    op: OP.SETATTR,
    // LOCKOWNER (bit 9) does not reach the union.
    body: setattrIn(0xfff),
    call: setattrCall(0xdff, 0x88),
    out: attrOut(1000),
  },
  'setattr without a handle': {
    op: OP.SETATTR,
    body: setattrIn(1),
    call: setattrCall(1, 0),
    out: attrOut(1000),
  },
  readlink: {
    op: OP.READLINK,
    body: zeros(0),
    call: ['readlink', node],
    out: Buffer.from('some data\0\xff', 'latin1'),
  },
  symlink: {
    op: OP.SYMLINK,
    body: join(cstr('name'), cstr('../t/\xe4')),
    call: ['symlink', caller(0), node, 'name', '../t/\xe4'],
    out: entryBytes(1000, 1000),
  },
  mknod: {
    op: OP.MKNOD,
    body: join(
      u32(0o020640), // mode
      u32(0x123abc45), // rdev
      u32(0o22), // umask
      u32(0), // padding
      cstr('dev'),
    ),
    call: ['mknod', caller(0o22), node, 'dev', 0o020640, 0xabc, 0x12345],
    out: entryBytes(1000, 1000),
  },
  mkdir: {
    op: OP.MKDIR,
    // mode, umask
    body: join(u32(0o41777), u32(0o77), cstr('dir')),
    call: ['mkdir', caller(0o77), node, 'dir', 0o1777],
    out: entryBytes(1000, 1000),
  },
  unlink: { op: OP.UNLINK, body: cstr('gone'), call: ['unlink', node, 'gone'], out: zeros(0) },
  rmdir: {
    op: OP.RMDIR,
    body: cstr('gone'),
    call: ['rmdir', node, 'gone'],
    set: returns('rmdir', -E.ENOTEMPTY),
    out: E.ENOTEMPTY,
  },
  rename: {
    op: OP.RENAME,
    // newdir, names
    body: join(u64(0x43), cstr('old'), cstr('new')),
    call: ['rename', node, 'old', 0x43, 'new', 0],
    out: zeros(0),
  },
  rename2: {
    op: OP.RENAME2,
    // newdir, flags, padding, names
    body: join(u64(0x43), u32(2), u32(0), cstr('old'), cstr('new')),
    call: ['rename', node, 'old', 0x43, 'new', 2],
    out: zeros(0),
  },
  link: {
    op: OP.LINK,
    // oldnodeid, name
    body: join(u64(0x43), cstr('too')),
    call: ['link', 0x43, node, 'too'],
    out: entryBytes(1000, 1000),
  },
  open: {
    op: OP.OPEN,
    // flags with __FMODE_EXEC, open_flags
    body: join(u32(0o100000 | 0x20), u32(0)),
    call: ['open', node, 0o100000, false],
    out: openOut(KEEP_CACHE),
  },
  'open and truncate': {
    op: OP.OPEN,
    body: join(u32(0o101001), u32(1)),
    call: ['open', node, 0o101001, true],
    out: openOut(KEEP_CACHE),
  },
  'open, passed through': {
    op: OP.OPEN,
    body: join(u32(1), u32(0)),
    call: ['open', node, 1, false],
    set: ({ ops }) =>
      void (ops.opening = opened =>
        Object.assign(opened, { upper: true, stable: true, writable: true })),
    out: openOut(0x80, 1),
  },
  create: {
    op: OP.CREATE,
    body: createIn(0o100301),
    call: ['create', caller(0o27), node, 'new', 0o2750, 0o100301],
    out: join(entryBytes(1000, 1000), openOut(KEEP_CACHE)),
  },
  'create, passed through and mappable: attributes are not to be kept': {
    op: OP.CREATE,
    body: createIn(0o100302),
    call: ['create', caller(0o27), node, 'new', 0o2750, 0o100302],
    set: ({ ops }) =>
      void (ops.opening = opened =>
        Object.assign(opened, { upper: true, stable: true, writable: true })),
    out: join(entryBytes(1000, 0), openOut(0x80, 1)),
  },
  tmpfile: {
    op: OP.TMPFILE,
    body: createIn(0o20200002),
    call: ['tmpfile', caller(0o27), node, 0o2750, 0o20200002],
    out: join(entryBytes(1000, 1000), openOut(KEEP_CACHE)),
    optional: 4,
  },
  read: {
    op: OP.READ,
    body: readIn(0x1_0000_0000, 4096),
    call: ['read', 0x77, 4096, 0x1_0000_0000],
    out: Buffer.from('some data\0\xff', 'latin1'),
  },
  write: {
    op: OP.WRITE,
    body: writeIn(0x1_0000_0000, 5, 0, 'h\0llo'),
    call: ['write', 0x77, 'h\0llo', 0x1_0000_0000, false, false],
    // size, padding
    out: join(u32(5), u32(0)),
  },
  'write that drops set-id bits': {
    op: OP.WRITE,
    body: writeIn(0, 1, 4, 'x'),
    call: ['write', 0x77, 'x', 0, true, false],
    out: join(u32(1), u32(0)),
  },
  'write from the page cache': {
    op: OP.WRITE,
    body: writeIn(0, 1, 1, 'x'),
    call: ['write', 0x77, 'x', 0, false, true],
    out: join(u32(1), u32(0)),
  },
  'write of more than there is': { op: OP.WRITE, body: writeIn(0, 6, 0, 'hello'), out: E.EINVAL },
  statfs: {
    op: OP.STATFS,
    body: zeros(0),
    call: ['statfs'],
    out: join(
      u64(0x10_0000_0001), // blocks
      u64(2), // bfree
      u64(3), // bavail
      u64(4), // files
      u64(5), // ffree
      u32(4096), // bsize
      u32(255), // namelen
      u32(1024), // frsize
      u32(0), // padding
      zeros(24), // spare
    ),
  },
  release: { op: OP.RELEASE, body: releaseIn, call: ['release', 0x77], out: zeros(0) },
  fsync: {
    op: OP.FSYNC,
    // fh, fsync_flags, padding
    body: join(u64(0x77), u32(1), u32(0)),
    call: ['fsync', 0x77, true],
    out: zeros(0),
  },
  fsyncdir: {
    op: OP.FSYNCDIR,
    body: join(u64(0x77), u32(0), u32(0)),
    call: ['fsyncdir', node, false],
    out: zeros(0),
  },
  syncfs: { op: OP.SYNCFS, body: u64(0), call: ['syncfs'], out: zeros(0), optional: 8 },
  setxattr: {
    op: OP.SETXATTR,
    body: join(
      u32(3), // size
      u32(1), // flags
      u32(1), // setxattr_flags
      u32(0), // padding
      cstr('user.a/b'),
      Buffer.from('v\0\xff', 'latin1'),
    ),
    call: ['setxattr', node, 'user.a/b', 'v\0\xff', 1, true],
    out: zeros(0),
  },
  'setxattr before 7.33': {
    op: OP.SETXATTR,
    // size, flags
    body: join(u32(3), u32(2), cstr('user.a'), Buffer.from('val')),
    minor: 31,
    call: ['setxattr', node, 'user.a', 'val', 2, false],
    out: zeros(0),
  },
  'setxattr of an empty value': {
    op: OP.SETXATTR,
    body: join(u32(0), u32(0), u32(0), u32(0), cstr('user.a')),
    call: ['setxattr', node, 'user.a', '', 0, false],
    out: zeros(0),
  },
  getxattr: {
    op: OP.GETXATTR,
    // size, padding
    body: join(u32(100), u32(0), cstr('user.a')),
    call: ['getxattr', node, 'user.a', 100],
    out: Buffer.from('some data\0\xff', 'latin1'),
  },
  'getxattr, asking for the length': {
    op: OP.GETXATTR,
    body: join(u32(0), u32(0), cstr('user.a')),
    call: ['getxattr', node, 'user.a', 0],
    // size, padding
    out: join(u32(11), u32(0)),
  },
  'getxattr with too little room': {
    op: OP.GETXATTR,
    body: join(u32(10), u32(0), cstr('user.a')),
    call: ['getxattr', node, 'user.a', 10],
    out: E.ERANGE,
  },
  'getxattr of none': {
    op: OP.GETXATTR,
    body: join(u32(10), u32(0), cstr('user.a')),
    call: ['getxattr', node, 'user.a', 10],
    set: returns('getxattr', -E.ENODATA),
    out: E.ENODATA,
  },
  listxattr: {
    op: OP.LISTXATTR,
    body: join(u32(64), u32(0)),
    call: ['listxattr', node, 64, caller(0)],
    out: Buffer.from('some data\0\xff', 'latin1'),
  },
  'listxattr, asking for the length': {
    op: OP.LISTXATTR,
    body: join(u32(0), u32(0)),
    call: ['listxattr', node, 0, caller(0)],
    out: join(u32(11), u32(0)),
  },
  removexattr: {
    op: OP.REMOVEXATTR,
    body: cstr('user.a'),
    call: ['removexattr', node, 'user.a'],
    out: zeros(0),
  },
  'opendir: not needed': { op: OP.OPENDIR, body: join(u32(0o300000), u32(0)), out: E.ENOSYS },
  releasedir: { op: OP.RELEASEDIR, body: releaseIn, out: E.ENOSYS },
  'opendir: the kernel is to keep no listing': {
    op: OP.OPENDIR,
    body: join(u32(0o300000), u32(0)),
    out: zeros(16),
    set: ({ session }) => void (session.initConfig.strictAtime = true),
  },
  'releasedir: of such a directory': {
    op: OP.RELEASEDIR,
    body: releaseIn,
    out: zeros(0),
    set: ({ session }) => void (session.initConfig.strictAtime = true),
  },
  readdir: {
    op: OP.READDIR,
    body: readIn(0, 4096),
    call: ['readdir', node, 0],
    out: join(...LISTED),
  },
  'readdir, going on': {
    op: OP.READDIR,
    body: readIn(3, 4096),
    call: ['readdir', node, 3],
    out: join(...LISTED.slice(3)),
  },
  'readdir with room for two and a bit': {
    op: OP.READDIR,
    body: readIn(0, 32 + 32 + 31),
    call: ['readdir', node, 0],
    out: join(...LISTED.slice(0, 2)),
  },
  'readdir, failing at once': {
    op: OP.READDIR,
    body: readIn(0x1_0000_0005, 4096),
    call: ['readdir', node, 0x1_0000_0005],
    set: returns('readdir', -E.EIO),
    out: E.EIO,
  },
  'readdir, failing after some': {
    op: OP.READDIR,
    body: readIn(0, 4096),
    call: ['readdir', node, 0],
    set: returns('readdir', -E.EIO),
    out: join(...LISTED),
  },
  'readdir of a cookie that never was': { op: OP.READDIR, body: readIn(-1, 4096), out: E.EINVAL },
  readdirplus: {
    op: OP.READDIRPLUS,
    body: readIn(0, 4096),
    call: ['readdirplus', node, 0],
    out: join(...LISTED_PLUS),
  },
  'readdirplus with room for three': {
    op: OP.READDIRPLUS,
    body: readIn(0, 3 * 160 + 159),
    call: ['readdirplus', node, 0],
    out: join(...LISTED_PLUS.slice(0, 3)),
  },
  'readdirplus of a cookie that never was': {
    op: OP.READDIRPLUS,
    body: readIn(-1, 4096),
    out: E.EINVAL,
  },
  fallocate: {
    op: OP.FALLOCATE,
    body: join(
      u64(0x77), // fh
      u64(0x1_0000_0000), // offset
      u64(4096), // length
      u32(3), // mode
      u32(0), // padding
    ),
    call: ['fallocate', 0x77, 3, 0x1_0000_0000, 4096],
    out: zeros(0),
  },
  lseek: {
    op: OP.LSEEK,
    body: join(
      u64(0x77), // fh
      u64(0x1_0000_0000), // offset
      u32(4), // whence
      u32(0), // padding
    ),
    call: ['lseek', 0x77, 0x1_0000_0000, 4],
    set: returns('lseek', 0x2_0000_0003),
    out: u64(0x2_0000_0003),
  },
  'copy file range': {
    op: OP.COPY_FILE_RANGE,
    body: copyIn(0x1_0000_0000, 0x2_0000_0000, 1n << 40n),
    // limited to 32 bits
    call: ['copyFileRange', 0x77, 0x1_0000_0000, 0x78, 0x2_0000_0000, 0x7fff_f000, 0],
    set: returns('copyFileRange', 4096),
    // size, padding
    out: join(u32(4096), u32(0)),
  },
  'copy file range 64': {
    op: OP.COPY_FILE_RANGE_64,
    body: copyIn(1, 2, 3),
    call: ['copyFileRange', 0x77, 1, 0x78, 2, 3, 0],
    set: returns('copyFileRange', 3),
    // bytes_copied
    out: u64(3),
  },
  'ioctl get flags': {
    op: OP.IOCTL,
    body: ioctlIn(FS_IOC_GETFLAGS, 4),
    call: ['getFlags', node],
    set: returns('getFlags', 0x10),
    out: ioctlOut(u32(0x10)),
  },
  'ioctl get flags into a long': {
    op: OP.IOCTL,
    body: ioctlIn(FS_IOC_GETFLAGS, 8),
    call: ['getFlags', node],
    set: returns('getFlags', 0x80000010),
    out: ioctlOut(u64(0x80000010)),
  },
  'ioctl get flags, no room': { op: OP.IOCTL, body: ioctlIn(FS_IOC_GETFLAGS, 0), out: E.EINVAL },
  'ioctl set flags': {
    op: OP.IOCTL,
    body: ioctlIn(FS_IOC_SETFLAGS, 0, u32(0x30)),
    call: ['setFlags', node, 0x30],
    out: ioctlOut(),
  },
  'ioctl set flags, refused': {
    op: OP.IOCTL,
    body: ioctlIn(FS_IOC_SETFLAGS, 0, u32(0x30)),
    call: ['setFlags', node, 0x30],
    set: returns('setFlags', -E.EPERM),
    out: E.EPERM,
  },
  'ioctl get xflags': {
    op: OP.IOCTL,
    body: ioctlIn(FS_IOC_FSGETXATTR, 28),
    call: ['getFlags', node],
    // immutable, append, nodump, and extents, which have no counterpart
    set: returns('getFlags', 0x80070),
    out: ioctlOut(fsxattr(0x98)),
  },
  'ioctl get xflags, no room': {
    op: OP.IOCTL,
    body: ioctlIn(FS_IOC_FSGETXATTR, 27),
    out: E.EINVAL,
  },
  'ioctl set xflags': {
    op: OP.IOCTL,
    body: ioctlIn(FS_IOC_FSSETXATTR, 0, fsxattr(0x40)),
    // noatime instead of immutable; extents stay
    call: ['setFlags', node, 0x80080],
    set: returns('getFlags', 0x80010),
    out: ioctlOut(),
  },
  'ioctl set xflags that are unknown': {
    op: OP.IOCTL,
    body: ioctlIn(FS_IOC_FSSETXATTR, 0, fsxattr(1)),
    out: E.EOPNOTSUPP,
  },
  'ioctl set an extent size': {
    op: OP.IOCTL,
    body: ioctlIn(FS_IOC_FSSETXATTR, 0, fsxattr(0, 4096)),
    out: E.EOPNOTSUPP,
  },
  'ioctl set a project': {
    op: OP.IOCTL,
    body: ioctlIn(FS_IOC_FSSETXATTR, 0, fsxattr(0, 0, 1)),
    out: E.EOPNOTSUPP,
  },
  'ioctl get flags, failing': {
    op: OP.IOCTL,
    body: ioctlIn(FS_IOC_GETFLAGS, 4),
    call: ['getFlags', node],
    set: returns('getFlags', -E.ENOTTY),
    out: E.ENOTTY,
  },
  'ioctl get xflags, failing': {
    op: OP.IOCTL,
    body: ioctlIn(FS_IOC_FSGETXATTR, 28),
    call: ['getFlags', node],
    set: returns('getFlags', -E.ENOTTY),
    out: E.ENOTTY,
  },
  'ioctl set xflags, failing': {
    op: OP.IOCTL,
    body: ioctlIn(FS_IOC_FSSETXATTR, 0, fsxattr(0)),
    call: ['getFlags', node],
    set: returns('getFlags', -E.ENOTTY),
    out: E.ENOTTY,
  },
  'ioctl that is unknown': { op: OP.IOCTL, body: ioctlIn(0x5401, 0), out: E.ENOTTY },
  destroy: { op: OP.DESTROY, body: zeros(0), out: zeros(0) },
  // unique of the interrupted request
  interrupt: { op: OP.INTERRUPT, body: u64(2), out: 'none' },
  flush: { op: OP.FLUSH, body: zeros(24), out: E.ENOSYS },
  access: { op: OP.ACCESS, body: zeros(8), out: E.ENOSYS },
  getlk: { op: OP.GETLK, body: zeros(48), out: E.ENOSYS },
  setlk: { op: OP.SETLK, body: zeros(48), out: E.ENOSYS },
  setlkw: { op: OP.SETLKW, body: zeros(48), out: E.ENOSYS },
  poll: { op: OP.POLL, body: zeros(24), out: E.ENOSYS },
  bmap: { op: OP.BMAP, body: zeros(16), out: E.ENOSYS },
  setupmapping: { op: OP.SETUPMAPPING, body: zeros(40), out: E.ENOSYS },
  removemapping: { op: OP.REMOVEMAPPING, body: zeros(4), out: E.ENOSYS },
  'notify reply': { op: OP.NOTIFY_REPLY, body: zeros(48), out: 'none' },
}

const rigFor = (c: Case): Rig => {
  const made = rig({
    io: c.io ?? 'passthrough',
    minor: c.minor ?? 45,
    flags: flagsAt(c.minor ?? 45),
  })
  c.set?.(made)
  return made
}
/** SETXATTR_EXT is 7.33, INIT_EXT 7.36. */
const flagsAt = (minor: number): number => (minor >= 36 ? 0x7fff_ffff : 0x0fff_ffff)

const expected = (c: Case): Buffer | number =>
  c.out === 'none' ? NOTHING : typeof c.out === 'number' ? errorReply(c.out) : reply(c.out)

t.test('every request, byte for byte', async t => {
  for (const [name, c] of Object.entries(cases)) {
    const r = rigFor(c)
    const got = r.send(request(c.op, c.body))
    t.same(got, expected(c), `${name}: reply`)
    t.same(r.ops.last, c.call, `${name}: call`)
  }
  const tested = new Set(Object.values(cases).map(c => c.op))
  const untested = Object.entries(OP).filter(([, op]) => op !== OP.INIT && !tested.has(op))
  t.same(untested, [], 'no opcode was left out')
})

t.test('a request that is truncated anywhere', async t => {
  for (const [name, c] of Object.entries(cases)) {
    if (c.out === E.ENOSYS) continue
    const whole = request(c.op, c.body)
    const silent = c.out === 'none'
    const short: string[] = []
    for (let length = 0; length < whole.length; length++) {
      for (const honest of [false, true]) {
        const bytes = Buffer.from(whole.subarray(0, length))
        // The header has either the intended length or a wrong one.
        if (honest && length >= 4) bytes.writeUInt32LE(length)
        const r = rigFor(c)
        const got = r.send(bytes)
        const fine =
          length < 40 || silent
            ? got === NOTHING
            : honest && whole.length - length <= (c.optional ?? 0)
              ? Buffer.isBuffer(got)
              : Buffer.isBuffer(got) && got.length === 16 && got.readInt32LE(4) < 0
        if (!fine || (!honest && r.ops.calls.length > 0)) short.push(`${length} ${String(honest)}`)
      }
    }
    t.same(short, [], name)
  }
})

t.test('names without a NUL', async t => {
  const endless = Buffer.from('name')
  const withName: [number, Buffer][] = [
    [OP.LOOKUP, endless],
    [OP.UNLINK, endless],
    [OP.SYMLINK, join(cstr('name'), endless)],
    [OP.RENAME, join(u64(2), cstr('a'), endless)],
    [OP.SETXATTR, join(zeros(16), endless)],
  ]
  for (const [op, body] of withName) {
    const r = rig()
    t.same(r.send(request(op, body)), errorReply(E.EINVAL))
    t.same(r.ops.calls, [])
  }
})

t.test('unknown opcodes', async t => {
  const r = rig()
  for (const op of [0, 7, 19, 54, 4096, 0x1000000, 0xffffffff]) {
    t.same(r.send(request(op, zeros(64))), errorReply(E.ENOSYS), `opcode ${op}`)
  }
  t.equal(r.session.errors, 7)
  t.same(r.ops.calls, [])
})

t.test('before INIT', async t => {
  const r = rig({ init: false })
  t.same(r.send(request(OP.GETATTR, zeros(16))), errorReply(E.EIO))
  t.same(r.ops.calls, [])
})

t.test('an operation that throws', async t => {
  const log = recordingLog()
  const r = rig({ log })
  log.lines.length = 0
  r.ops.throws.getattr = new Error('broken')
  t.same(r.send(request(OP.GETATTR, zeros(16))), errorReply(E.EIO))
  const [level, , fields] = log.lines[0]!
  t.equal(level, 'error')
  t.match(fields, { err: { message: 'broken', stack: /session\.test/ }, op: 'GETATTR', node })
  delete r.ops.throws.getattr
  t.same(r.send(request(OP.GETATTR, zeros(16))), reply(attrOut(1000)), 'and it goes on')
  r.ops.throws.forget = new Error('broken')
  t.equal(r.send(request(OP.FORGET, u64(1))), NOTHING)
  t.equal(log.lines.length, 2)
})

t.test('no descriptor is left', async t => {
  const r = rig()
  for (const [rooms, times] of [
    [2, 3],
    [0, 1],
    [1e9, 25], // but with a limit
  ] as const) {
    r.ops.results.unlink = -E.EMFILE
    r.ops.rooms = rooms
    r.ops.calls.length = 0
    t.same(r.send(request(OP.UNLINK, cstr('a'))), errorReply(E.EMFILE))
    t.equal(r.ops.calls.length, times, 'as often as there is something to close')
  }
})

t.test('invalid results', async t => {
  const r = rig()
  for (const bad of [-512, -1000, Number.NaN, 1e9, undefined as unknown as number]) {
    r.ops.results.unlink = bad
    if (bad === undefined) delete r.ops.results.unlink
    const want = bad === undefined ? reply() : errorReply(E.EIO)
    t.same(r.send(request(OP.UNLINK, cstr('x'))), want, String(bad))
  }
})

t.test('ENOSYS if syncing is free', async t => {
  const r = rig()
  r.ops.syncIsFree = true
  for (const opcode of [OP.FSYNC, OP.FSYNCDIR]) {
    t.same(r.send(request(opcode, zeros(16))), errorReply(E.ENOSYS))
  }
  t.same(r.ops.calls, [])
})

t.test('an operation that has to wait', async t => {
  const r = rig({ log: recordingLog(true) })
  const pending = new Pending({ onDone: () => {} }, true)
  r.ops.throws.fsync = pending
  const bytes = request(OP.FSYNC, zeros(16))
  t.equal(r.send(bytes), PARKED)
  t.equal(r.session.pending, pending)
  const n = r.session.answer(load(bytes), -E.EINTR)
  t.same(r.session.reply.buf.subarray(0, n), errorReply(E.EINTR))
})

/** The calls of the union after a reply was not delivered. */
const undeliver = (op: number, body: Buffer, set?: (r: Rig) => void): unknown[][] => {
  const r = rig()
  set?.(r)
  const bytes = request(op, body)
  r.send(bytes)
  r.ops.calls.length = 0
  r.session.undelivered(load(bytes))
  return r.ops.calls
}

t.test('a reply that was not delivered', async t => {
  const gave = [['forget', 0x42, 1]]
  t.same(undeliver(OP.LOOKUP, cstr('a')), gave)
  t.same(
    undeliver(OP.LOOKUP, cstr('a'), r => void (r.ops.node = 0)),
    [],
    'negative',
  )
  t.same(undeliver(OP.LOOKUP, cstr('a'), returns('lookup', -5)), [], 'failed')
  t.same(undeliver(OP.MKDIR, join(zeros(8), cstr('a'))), gave)
  t.same(undeliver(OP.MKNOD, join(zeros(16), cstr('a'))), gave)
  t.same(undeliver(OP.SYMLINK, join(cstr('a'), cstr('b'))), gave)
  t.same(undeliver(OP.LINK, join(zeros(8), cstr('b'))), gave)
  t.same(undeliver(OP.CREATE, createIn(1)), [['release', 0x77], ...gave])
  t.same(undeliver(OP.TMPFILE, createIn(1)), [['release', 0x77], ...gave])
  t.same(undeliver(OP.OPEN, zeros(8)), [['release', 0x77]])
  t.same(undeliver(OP.GETATTR, zeros(16)), [])
  t.same(undeliver(OP.READDIRPLUS, readIn(0, 4096)), [
    ['forget', 0x51, 1],
    ['forget', 0x52, 1],
  ])
})

t.test('handles: the io mode belongs to the handle', async t => {
  const r = rig()
  r.ops.opening = opened =>
    void Object.assign(opened, { upper: true, stable: true, writable: true })
  r.send(request(OP.OPEN, join(u32(2), u32(0))))
  t.same(r.changed, [node], 'the kernel drops what it knows of a node that can be mapped')
  t.same(r.send(request(OP.GETATTR, zeros(16))), reply(attrOut(0)))
  t.same(r.send(request(OP.LOOKUP, cstr('a'))), reply(entryBytes(1000, 1000)), 'another node')
  r.send(request(OP.RELEASE, releaseIn))
  t.same(r.send(request(OP.GETATTR, zeros(16))), reply(attrOut(1000)))
  t.same(r.backing.probes, ['reopen 99', 'written 1099?'])
  r.send(request(OP.FORGET, u64(1)))
  t.same(r.backing.log, ['open 99', 'close 1'])
  r.send(request(OP.FORGET, u64(1), { nodeid: 1 }))
  t.same(r.ops.last, ['forget', node, 1], 'the root is never forgotten')
})

/** The caller that the union sees. */
const who = (op: number, body: Buffer): unknown => {
  const r = rig()
  r.send(request(op, body))
  return { ...r.ops.requester }
}

t.test('a handle that the kernel could not use is closed', async t => {
  const O_DIRECT = process.arch === 'arm64' ? 0o200000 : 0o40000
  const r = rig()
  r.backing.direct = false
  r.ops.opening = opened => void (opened.stable = true)
  t.same(r.send(request(OP.OPEN, join(u32(O_DIRECT), u32(0)))), errorReply(E.EINVAL))
  t.same(r.ops.last, ['release', 0x77])
  t.same(r.send(request(OP.CREATE, createIn(O_DIRECT))), errorReply(E.EINVAL))
  t.same(r.ops.calls.slice(-2), [
    ['release', 0x77],
    ['forget', 0x42, 1],
  ])
})

t.test('the union knows the caller if set-id bits depend on it', async t => {
  const asked = { uid: UID, gid: GID, pid: PID, umask: 0 }
  t.same(who(OP.SETATTR, setattrIn(1)), asked)
  t.same(who(OP.WRITE, writeIn(0, 1, 4, 'x')), asked)
  t.same(who(OP.OPEN, join(u32(0o1001), u32(1))), asked)
})

t.test('ENOSYS without extended attributes', async t => {
  const r = rig({ tuning: { xattrs: false } })
  const { length } = r.ops.calls
  for (const [op, body] of [
    [OP.GETXATTR, join(u32(100), u32(0), cstr('user.a'))],
    [OP.LISTXATTR, join(u32(0), u32(0))],
    [OP.SETXATTR, join(u32(1), u32(0), u32(0), u32(0), cstr('user.a'), Buffer.from('x'))],
    [OP.REMOVEXATTR, cstr('user.a')],
  ] as const) {
    t.same(r.send(request(op, body)), errorReply(E.ENOSYS))
  }
  t.equal(r.ops.calls.length, length, 'the union is not asked')
})

t.test('without ACLs', async t => {
  const r = rig({ tuning: { acl: false } })
  const { length } = r.ops.calls
  for (const name of ['system.posix_acl_access', 'system.posix_acl_default']) {
    for (const [op, body] of [
      [OP.GETXATTR, join(u32(100), u32(0), cstr(name))],
      [OP.SETXATTR, join(u32(1), u32(0), u32(0), u32(0), cstr(name), Buffer.from('x'))],
      [OP.REMOVEXATTR, cstr(name)],
    ] as const) {
      t.same(r.send(request(op, body)), errorReply(E.EOPNOTSUPP), name)
    }
  }
  t.equal(r.ops.calls.length, length, 'the union is not asked')

  const list = (room: number) => r.send(request(OP.LISTXATTR, join(u32(room), u32(0))))
  r.ops.data = Buffer.from('user.a\0system.posix_acl_access\0user.b\0system.posix_acl_default\0')
  const rest = cstr('user.a\0user.b')
  t.same(list(64), reply(rest))
  t.same(list(14), reply(rest), 'the room is that for what is left')
  t.same(list(13), errorReply(E.ERANGE))
  t.same(list(0), reply(join(u32(14), u32(0))))
  r.ops.data = Buffer.from('system.posix_acl_default\0')
  t.same(list(64), reply())
  r.ops.results.listxattr = -E.EIO
  t.same(list(64), errorReply(E.EIO))
})

/** The link counts in every reply with attributes. */
const links = (tuning: { staticNlink: boolean }, mode: number, nlink: number): number[] => {
  const r = rig({ tuning })
  const fill = (out: Attr): number => {
    Object.assign(out, { mode, nlink })
    return 0
  }
  const enter = (out: Entry): number => {
    out.nodeId = 0x42
    return fill(out.attr)
  }
  r.ops.getattr = (_node, _fh, out) => fill(out)
  r.ops.setattr = (_node, _set, out) => fill(out)
  r.ops.lookup = (_parent, _name, out) => enter(out)
  r.ops.mkdir = (_caller, _parent, _name, _mode, out) => enter(out)
  r.ops.readdirplus = (_node, _cookie, sink) => {
    const entry = new Entry()
    enter(entry)
    if (sink.room('a')) sink.add('a', 1, 4, 1, entry)
    return 0
  }
  const at = (op: number, body: Buffer, offset: number): number =>
    (r.send(request(op, body)) as Buffer).readUInt32LE(16 + offset)
  return [
    at(OP.GETATTR, zeros(16), 16 + 64),
    at(OP.STATX, zeros(24), 32 + 16),
    at(OP.SETATTR, setattrIn(1), 16 + 64),
    at(OP.LOOKUP, cstr('a'), 40 + 64),
    at(OP.MKDIR, join(u32(0o755), u32(0), cstr('a')), 40 + 64),
    at(OP.READDIRPLUS, readIn(0, 4096), 40 + 64),
  ]
}

t.test('static_nlink: every reply shows one link for a directory', async t => {
  t.same(links({ staticNlink: true }, 0o040755, 7), Array(6).fill(1))
  t.same(links({ staticNlink: true }, 0o040755, 0), Array(6).fill(0), 'a removed one has none')
  t.same(links({ staticNlink: true }, 0o100644, 7), Array(6).fill(7), 'files keep theirs')
  t.same(links({ staticNlink: false }, 0o040755, 7), Array(6).fill(7))
})

t.test('a mapping of pages for which the kernel keeps no times', async t => {
  for (const { io, writeback } of [
    { io: 'cached', writeback: true },
    { io: 'cached', writeback: false },
    { io: 'passthrough', writeback: false },
  ] as const)
    for (const flags of [0, 1, 2]) {
      const r = rig({ io, writeback })
      r.ops.opening = opened => Object.assign(opened, { fh: 9, fd: 5, writable: flags > 0 })
      r.send(request(OP.OPEN, join(u32(flags), u32(0))))
      const told = flags === 2 && !writeback
      t.same(r.ops.mapped, told ? [9] : [], `${io}, ${String(writeback)}, ${flags}`)
    }
})

t.test('fractions of a second', async t => {
  const r = rig({ timeout: 1.5 })
  const got = r.send(request(OP.GETATTR, zeros(16))) as Buffer
  t.same(got.subarray(16, 32), join(u64(1), u32(500_000_000), u32(0)))
})

t.test('debug lines', async t => {
  const log = recordingLog(true)
  const r = rig({ log })
  log.lines.length = 0
  r.send(request(OP.UNLINK, cstr('x'), { unique: 7n }))
  r.send(request(OP.POLL, zeros(24)))
  t.same(
    log.lines.map(([level, message]) => `${level} ${message}`),
    [
      `debug rx 7: UNLINK n${node}, 2 bytes`,
      'debug tx 7: OK, 0 bytes',
      `debug rx ${UNIQUE}: POLL n${node}, 24 bytes`,
      `debug tx ${UNIQUE}: ENOSYS`,
    ],
  )
})

t.test('counters', async t => {
  const r = rig()
  r.send(request(OP.UNLINK, cstr('x')))
  r.send(request(OP.UNLINK, cstr('x')))
  r.send(request(OP.POLL, zeros(24)))
  t.equal(r.session.counts[OP.UNLINK], 2)
  t.equal(r.session.counts[OP.INIT], 1)
  t.equal(r.session.errors, 1)
})

t.test('garbage', async t => {
  const r = rig()
  const silent: number[] = [OP.FORGET, OP.BATCH_FORGET, OP.INTERRUPT, OP.NOTIFY_REPLY]
  fc.assert(
    fc.property(
      fc.oneof(fc.integer({ min: 0, max: 60 }), fc.nat()),
      fc.uint8Array({ maxLength: 300 }),
      fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      fc.boolean(),
      (op, body, nodeid, honest) => {
        if (op === OP.INIT) return
        const bytes = request(op, Buffer.from(body), { nodeid })
        if (!honest) bytes.writeUInt32LE(body.length, 0)
        const got = r.send(bytes)
        if (silent.includes(op)) return got === NOTHING
        return (
          Buffer.isBuffer(got) &&
          got.readUInt32LE(0) === got.length &&
          got.readInt32LE(4) <= 0 &&
          got.readBigUInt64LE(8) === UNIQUE
        )
      },
    ),
    { numRuns: 5000 },
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), body => {
      const got = r.send(Buffer.from(body))
      return got === NOTHING || Buffer.isBuffer(got)
    }),
    { numRuns: 2000 },
  )
  t.ok(handlers.length > 50)
  t.ok(Buffer.isBuffer(r.send(initRequest(45))))
})

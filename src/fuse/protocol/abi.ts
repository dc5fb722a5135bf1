/**
 * The numbers of include/uapi/linux/fuse.h, protocol 7.31 to 7.45: opcodes, flags, sizes and
 * offsets of the structures. Offsets in request structures start at the body, which follows the
 * 40-byte header. Offsets in reply structures start at the structure. All integers are little
 * endian, the machine's own byte order; only x64 and arm64 are supported.
 */

export const KERNEL_MAJOR = 7
/** The newest minor version whose structures are known here, and the oldest that is served. */
export const KERNEL_MINOR = 45
export const MINOR_MIN = 31

/** enum fuse_opcode */
export const Opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48,
  REMOVEMAPPING: 49,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
  COPY_FILE_RANGE_64: 53,
} as const

/** One more than the largest opcode. */
export const OPCODE_COUNT = 54

const names: string[] = []
for (const [name, opcode] of Object.entries(Opcode)) names[opcode] = name

/** For logs and statistics. */
export const opcodeName = (opcode: number): string => names[opcode] ?? `OP_${opcode}`

/**
 * struct fuse_in_header {u32 len, opcode; u64 unique, nodeid; u32 uid, gid, pid; u16 extlen,
 * padding}
 */
export const IN_HEADER_SIZE = 40
/** struct fuse_out_header {u32 len; s32 error; u64 unique} */
export const OUT_HEADER_SIZE = 16

// Sizes of the fixed part of request bodies, if they have one.
export const FORGET_IN_SIZE = 8
export const BATCH_FORGET_IN_SIZE = 8
export const FORGET_ONE_SIZE = 16
export const GETATTR_IN_SIZE = 16
export const STATX_IN_SIZE = 24
export const SETATTR_IN_SIZE = 88
export const MKNOD_IN_SIZE = 16
export const MKDIR_IN_SIZE = 8
export const RENAME_IN_SIZE = 8
export const RENAME2_IN_SIZE = 16
export const LINK_IN_SIZE = 8
export const OPEN_IN_SIZE = 8
export const CREATE_IN_SIZE = 16
export const READ_IN_SIZE = 40
export const WRITE_IN_SIZE = 40
export const RELEASE_IN_SIZE = 24
export const FSYNC_IN_SIZE = 16
/** struct fuse_setxattr_in: the first size without, the second with FUSE_SETXATTR_EXT. */
export const SETXATTR_COMPAT_IN_SIZE = 8
export const SETXATTR_IN_SIZE = 16
export const GETXATTR_IN_SIZE = 8
export const INTERRUPT_IN_SIZE = 8
export const IOCTL_IN_SIZE = 32
export const FALLOCATE_IN_SIZE = 32
export const LSEEK_IN_SIZE = 24
export const COPY_FILE_RANGE_IN_SIZE = 56
/** struct fuse_init_in up to 7.35, and from 7.36 (flags2). */
export const INIT_COMPAT_IN_SIZE = 16
export const INIT_IN_SIZE = 64

// Sizes of reply structures.
export const ATTR_SIZE = 88
export const ENTRY_OUT_SIZE = 128
export const ATTR_OUT_SIZE = 104
export const STATX_OUT_SIZE = 288
export const OPEN_OUT_SIZE = 16
export const WRITE_OUT_SIZE = 8
export const STATFS_OUT_SIZE = 80
export const GETXATTR_OUT_SIZE = 8
export const INIT_OUT_SIZE = 64
export const IOCTL_OUT_SIZE = 16
export const LSEEK_OUT_SIZE = 8
export const COPY_FILE_RANGE_OUT_SIZE = 8
/** struct fuse_dirent up to its name */
export const DIRENT_SIZE = 24
/** struct fuse_direntplus up to its name */
export const DIRENTPLUS_SIZE = ENTRY_OUT_SIZE + DIRENT_SIZE

// Flags in requests
export const GETATTR_FH = 1 << 0
export const FATTR_FH = 1 << 6
export const FATTR_LOCKOWNER = 1 << 9
/** Written back from the page cache: the writer and the time of the write are unknown. */
export const WRITE_CACHE = 1 << 0
export const WRITE_KILL_SUIDGID = 1 << 2
export const OPEN_KILL_SUIDGID = 1 << 0
export const FSYNC_FDATASYNC = 1 << 0
export const SETXATTR_ACL_KILL_SGID = 1 << 0
/** The kernel's __FMODE_EXEC, which it leaves in the flags of an open for execve(2). */
export const FMODE_EXEC = 0x20

// open_flags of struct fuse_open_out
export const FOPEN_DIRECT_IO = 1 << 0
export const FOPEN_KEEP_CACHE = 1 << 1
export const FOPEN_CACHE_DIR = 1 << 3
export const FOPEN_PASSTHROUGH = 1 << 7

/** enum fuse_notify_code */
export const NOTIFY_INVAL_INODE = 2
export const NOTIFY_INVAL_INODE_OUT_SIZE = 24
export const NOTIFY_PRUNE = 9
export const NOTIFY_PRUNE_OUT_SIZE = 16
/** The minor version that introduced it. */
export const NOTIFY_PRUNE_SINCE = 45
export const NOTIFY_STORE = 4
export const NOTIFY_STORE_OUT_SIZE = 24

// Requests of ioctl(2) on the device
/**
 * _IOW(229, 1, struct fuse_backing_map {s32 fd; u32 flags; u64 padding}): returns the backing id
 */
export const DEV_IOC_BACKING_OPEN = 0x4010e501
/** _IOW(229, 2, u32) */
export const DEV_IOC_BACKING_CLOSE = 0x4004e502

/** Bits of `flags` in the INIT request and reply. */
export const InitFlag = {
  ASYNC_READ: 2 ** 0,
  POSIX_LOCKS: 2 ** 1,
  FILE_OPS: 2 ** 2,
  ATOMIC_O_TRUNC: 2 ** 3,
  EXPORT_SUPPORT: 2 ** 4,
  BIG_WRITES: 2 ** 5,
  DONT_MASK: 2 ** 6,
  SPLICE_WRITE: 2 ** 7,
  SPLICE_MOVE: 2 ** 8,
  SPLICE_READ: 2 ** 9,
  FLOCK_LOCKS: 2 ** 10,
  HAS_IOCTL_DIR: 2 ** 11,
  AUTO_INVAL_DATA: 2 ** 12,
  DO_READDIRPLUS: 2 ** 13,
  READDIRPLUS_AUTO: 2 ** 14,
  ASYNC_DIO: 2 ** 15,
  WRITEBACK_CACHE: 2 ** 16,
  NO_OPEN_SUPPORT: 2 ** 17,
  PARALLEL_DIROPS: 2 ** 18,
  HANDLE_KILLPRIV: 2 ** 19,
  POSIX_ACL: 2 ** 20,
  ABORT_ERROR: 2 ** 21,
  MAX_PAGES: 2 ** 22,
  CACHE_SYMLINKS: 2 ** 23,
  NO_OPENDIR_SUPPORT: 2 ** 24,
  EXPLICIT_INVAL_DATA: 2 ** 25,
  MAP_ALIGNMENT: 2 ** 26,
  SUBMOUNTS: 2 ** 27,
  HANDLE_KILLPRIV_V2: 2 ** 28,
  SETXATTR_EXT: 2 ** 29,
  INIT_EXT: 2 ** 30,
} as const

/** Bits of `flags2`: those of FUSE_* shifted right by 32. Only with INIT_EXT. */
export const InitFlag2 = {
  SECURITY_CTX: 2 ** 0,
  HAS_INODE_DAX: 2 ** 1,
  CREATE_SUPP_GROUP: 2 ** 2,
  HAS_EXPIRE_ONLY: 2 ** 3,
  DIRECT_IO_ALLOW_MMAP: 2 ** 4,
  PASSTHROUGH: 2 ** 5,
  NO_EXPORT_SUPPORT: 2 ** 6,
  HAS_RESEND: 2 ** 7,
  ALLOW_IDMAP: 2 ** 8,
  OVER_IO_URING: 2 ** 9,
  REQUEST_TIMEOUT: 2 ** 10,
} as const

/**
 * The INIT flags that the server never requests, with the reason. Together with the flags of
 * init.ts this is every flag up to 7.45.
 */
export const REFUSED_INIT_FLAGS: Readonly<
  Partial<Record<keyof typeof InitFlag | keyof typeof InitFlag2, string>>
> = {
  POSIX_LOCKS:
    'record locks are kept by the kernel: every user of the union goes through this mount',
  FLOCK_LOCKS: 'as POSIX_LOCKS',
  FILE_OPS: 'never implemented by the kernel',
  EXPORT_SUPPORT:
    'a file handle outlives its node number, and a forgotten node cannot be found again',
  SPLICE_WRITE:
    'only announces what the kernel supports; large replies use splice(2) if possible (splice-read.ts)',
  SPLICE_MOVE: 'as SPLICE_WRITE',
  SPLICE_READ: 'as SPLICE_WRITE',
  ASYNC_DIO:
    'an asynchronous write past the page cache would leave old pages that were read meanwhile',
  NO_OPEN_SUPPORT:
    'without `noopen` an open decides between page cache and passthrough, copies up, and truncates',
  HANDLE_KILLPRIV: 'also drops set-id bits of callers that may keep them; see HANDLE_KILLPRIV_V2',
  MAP_ALIGNMENT: 'for DAX windows of virtiofs',
  HAS_INODE_DAX: 'as MAP_ALIGNMENT',
  SUBMOUNTS: 'for virtiofs; mounts below a layer are not part of the union',
  SECURITY_CTX:
    'security labels of new inodes are left to the layer, as for any file created in it',
  CREATE_SUPP_GROUP:
    'the kernel checks the right to keep a set-group-id bit before it sends the request',
  HAS_EXPIRE_ONLY: 'entries are never expired: names change through this mount only',
  HAS_RESEND: 'a request lost with its server cannot be served by another one',
  ALLOW_IDMAP: 'kernel overlayfs cannot be mounted idmapped either (its layers can)',
  OVER_IO_URING: 'needs io_uring, which has no binding here',
  REQUEST_TIMEOUT: 'the copy-up of a large file may rightly take longer than any limit',
}

/**
 * Constants of the kernel's user interface (uapi headers), as named exports, for the architecture
 * in use. Only a few O_* differ between x64 and arm64; libc.ts refuses other architectures. This
 * module imports nothing and uses no FFI.
 */

const arm64 = process.arch === 'arm64'

// open(2). fcntl.h
export const O_RDONLY = 0o0
export const O_WRONLY = 0o1
export const O_RDWR = 0o2
export const O_ACCMODE = 0o3
export const O_CREAT = 0o100
export const O_EXCL = 0o200
export const O_NOCTTY = 0o400
export const O_TRUNC = 0o1000
export const O_APPEND = 0o2000
export const O_NONBLOCK = 0o4000
export const O_DSYNC = 0o10000
export const O_ASYNC = 0o20000
export const O_DIRECT = arm64 ? 0o200000 : 0o40000
/** Not used in calls; the kernel may report it in the flags of a FUSE open. */
export const O_LARGEFILE = arm64 ? 0o400000 : 0o100000
export const O_DIRECTORY = arm64 ? 0o40000 : 0o200000
export const O_NOFOLLOW = arm64 ? 0o100000 : 0o400000
export const O_NOATIME = 0o1000000
export const O_CLOEXEC = 0o2000000
export const O_SYNC = 0o4010000
export const O_PATH = 0o10000000
export const O_TMPFILE = 0o20000000 | O_DIRECTORY

// fcntl(2). fcntl.h
export const F_DUPFD_CLOEXEC = 1030

// The *at calls. fcntl.h
export const AT_FDCWD = -100
export const AT_SYMLINK_NOFOLLOW = 0x100
export const AT_EACCESS = 0x200
export const AT_REMOVEDIR = 0x200
export const AT_SYMLINK_FOLLOW = 0x400
export const AT_NO_AUTOMOUNT = 0x800
export const AT_EMPTY_PATH = 0x1000
export const AT_STATX_SYNC_AS_STAT = 0x0
export const AT_STATX_FORCE_SYNC = 0x2000
export const AT_STATX_DONT_SYNC = 0x4000

// File types and mode bits. inode(7)
export const S_IFMT = 0o170000
export const S_IFSOCK = 0o140000
export const S_IFLNK = 0o120000
export const S_IFREG = 0o100000
export const S_IFBLK = 0o060000
export const S_IFDIR = 0o040000
export const S_IFCHR = 0o020000
export const S_IFIFO = 0o010000
export const S_ISUID = 0o4000
export const S_ISGID = 0o2000
export const S_ISVTX = 0o1000
export const S_IRWXU = 0o700
export const S_IRUSR = 0o400
export const S_IWUSR = 0o200
export const S_IXUSR = 0o100
export const S_IRWXG = 0o070
export const S_IRGRP = 0o040
export const S_IWGRP = 0o020
export const S_IXGRP = 0o010
export const S_IRWXO = 0o007
export const S_IROTH = 0o004
export const S_IWOTH = 0o002
export const S_IXOTH = 0o001

// Types of directory entries. dirent.h; DT_x = S_IFx >> 12
export const DT_UNKNOWN = 0
export const DT_FIFO = 1
export const DT_CHR = 2
export const DT_DIR = 4
export const DT_BLK = 6
export const DT_REG = 8
export const DT_LNK = 10
export const DT_SOCK = 12
export const DT_WHT = 14

// renameat2(2)
export const RENAME_NOREPLACE = 1
export const RENAME_EXCHANGE = 2
export const RENAME_WHITEOUT = 4

// openat2(2)
export const RESOLVE_NO_XDEV = 0x01
export const RESOLVE_NO_MAGICLINKS = 0x02
export const RESOLVE_NO_SYMLINKS = 0x04
export const RESOLVE_BENEATH = 0x08
export const RESOLVE_IN_ROOT = 0x10
export const RESOLVE_CACHED = 0x20

// setxattr(2)
export const XATTR_CREATE = 1
export const XATTR_REPLACE = 2
export const XATTR_NAME_MAX = 255
export const XATTR_SIZE_MAX = 65536
export const XATTR_LIST_MAX = 65536

// fallocate(2)
export const FALLOC_FL_KEEP_SIZE = 0x01
export const FALLOC_FL_PUNCH_HOLE = 0x02
export const FALLOC_FL_COLLAPSE_RANGE = 0x08
export const FALLOC_FL_ZERO_RANGE = 0x10
export const FALLOC_FL_INSERT_RANGE = 0x20
export const FALLOC_FL_UNSHARE_RANGE = 0x40

// lseek(2)
export const SEEK_SET = 0
export const SEEK_CUR = 1
export const SEEK_END = 2
export const SEEK_DATA = 3
export const SEEK_HOLE = 4

// mount(2) and umount2(2)
export const MS_RDONLY = 1 << 0
export const MS_NOSUID = 1 << 1
export const MS_NODEV = 1 << 2
export const MS_NOEXEC = 1 << 3
export const MS_SYNCHRONOUS = 1 << 4
export const MS_REMOUNT = 1 << 5
export const MS_MANDLOCK = 1 << 6
export const MS_DIRSYNC = 1 << 7
export const MS_NOSYMFOLLOW = 1 << 8
export const MS_NOATIME = 1 << 10
export const MS_NODIRATIME = 1 << 11
export const MS_BIND = 1 << 12
export const MS_MOVE = 1 << 13
export const MS_REC = 1 << 14
export const MS_SILENT = 1 << 15
export const MS_POSIXACL = 1 << 16
export const MS_UNBINDABLE = 1 << 17
export const MS_PRIVATE = 1 << 18
export const MS_SLAVE = 1 << 19
export const MS_SHARED = 1 << 20
export const MS_RELATIME = 1 << 21
export const MS_STRICTATIME = 1 << 24
export const MS_LAZYTIME = 1 << 25
export const MNT_FORCE = 1
export const MNT_DETACH = 2
export const MNT_EXPIRE = 4
export const UMOUNT_NOFOLLOW = 8

// statfs(2): f_flags (ST_RDONLY .. ST_NOEXEC equal MS_*) and some f_type
export const ST_RDONLY = 1
export const ST_NOSUID = 2
export const ST_NODEV = 4
export const ST_NOEXEC = 8
export const EXT4_SUPER_MAGIC = 0xef53
export const TMPFS_MAGIC = 0x01021994
export const FUSE_SUPER_MAGIC = 0x65735546
export const OVERLAYFS_SUPER_MAGIC = 0x794c7630
export const PROC_SUPER_MAGIC = 0x9fa0
export const NFS_SUPER_MAGIC = 0x6969

// utimensat(2)
export const UTIME_NOW = 0x3fffffff
export const UTIME_OMIT = 0x3ffffffe

// statx(2)
export const STATX_TYPE = 0x1
export const STATX_MODE = 0x2
export const STATX_NLINK = 0x4
export const STATX_UID = 0x8
export const STATX_GID = 0x10
export const STATX_ATIME = 0x20
export const STATX_MTIME = 0x40
export const STATX_CTIME = 0x80
export const STATX_INO = 0x100
export const STATX_SIZE = 0x200
export const STATX_BLOCKS = 0x400
export const STATX_BASIC_STATS = 0x7ff
export const STATX_BTIME = 0x800
export const STATX_MNT_ID = 0x1000
export const STATX_DIOALIGN = 0x2000
export const STATX_MNT_ID_UNIQUE = 0x4000
export const STATX_SUBVOL = 0x8000

// stx_attributes
export const STATX_ATTR_COMPRESSED = 0x4
export const STATX_ATTR_IMMUTABLE = 0x10
export const STATX_ATTR_APPEND = 0x20
export const STATX_ATTR_NODUMP = 0x40
export const STATX_ATTR_ENCRYPTED = 0x800
export const STATX_ATTR_AUTOMOUNT = 0x1000
export const STATX_ATTR_MOUNT_ROOT = 0x2000
export const STATX_ATTR_VERITY = 0x100000
export const STATX_ATTR_DAX = 0x200000

// ioctl(2) requests of file systems. linux/fs.h, 64-bit
export const FS_IOC_GETFLAGS = 0x80086601
export const FS_IOC_SETFLAGS = 0x40086602
export const FS_IOC_GETVERSION = 0x80087601
export const FS_IOC_SETVERSION = 0x40087602
export const FS_IOC_FSGETXATTR = 0x801c581f
export const FS_IOC_FSSETXATTR = 0x401c5820
export const FICLONE = 0x40049409
export const FICLONERANGE = 0x4020940d
export const FIDEDUPERANGE = 0xc0189436

// Inode flags of FS_IOC_GETFLAGS
export const FS_SECRM_FL = 0x1
export const FS_UNRM_FL = 0x2
export const FS_COMPR_FL = 0x4
export const FS_SYNC_FL = 0x8
export const FS_IMMUTABLE_FL = 0x10
export const FS_APPEND_FL = 0x20
export const FS_NODUMP_FL = 0x40
export const FS_NOATIME_FL = 0x80
export const FS_DIRSYNC_FL = 0x10000
export const FS_VERITY_FL = 0x100000
export const FS_NOCOW_FL = 0x800000
export const FS_DAX_FL = 0x2000000
export const FS_PROJINHERIT_FL = 0x20000000
export const FS_CASEFOLD_FL = 0x40000000

// poll(2)
export const POLLIN = 0x1
export const POLLPRI = 0x2
export const POLLOUT = 0x4
export const POLLERR = 0x8
export const POLLHUP = 0x10
export const POLLNVAL = 0x20

// flock(2)
export const LOCK_SH = 1
export const LOCK_EX = 2
export const LOCK_NB = 4
export const LOCK_UN = 8

// Numbers of capabilities. capabilities(7)
export const CAP_CHOWN = 0
export const CAP_DAC_OVERRIDE = 1
export const CAP_DAC_READ_SEARCH = 2
export const CAP_FOWNER = 3
export const CAP_FSETID = 4
export const CAP_KILL = 5
export const CAP_SETGID = 6
export const CAP_SETUID = 7
export const CAP_SETPCAP = 8
export const CAP_LINUX_IMMUTABLE = 9
export const CAP_NET_BIND_SERVICE = 10
export const CAP_NET_BROADCAST = 11
export const CAP_NET_ADMIN = 12
export const CAP_NET_RAW = 13
export const CAP_IPC_LOCK = 14
export const CAP_IPC_OWNER = 15
export const CAP_SYS_MODULE = 16
export const CAP_SYS_RAWIO = 17
export const CAP_SYS_CHROOT = 18
export const CAP_SYS_PTRACE = 19
export const CAP_SYS_PACCT = 20
export const CAP_SYS_ADMIN = 21
export const CAP_SYS_BOOT = 22
export const CAP_SYS_NICE = 23
export const CAP_SYS_RESOURCE = 24
export const CAP_SYS_TIME = 25
export const CAP_SYS_TTY_CONFIG = 26
export const CAP_MKNOD = 27
export const CAP_LEASE = 28
export const CAP_AUDIT_WRITE = 29
export const CAP_AUDIT_CONTROL = 30
export const CAP_SETFCAP = 31
export const CAP_MAC_OVERRIDE = 32
export const CAP_MAC_ADMIN = 33
export const CAP_SYSLOG = 34
export const CAP_WAKE_ALARM = 35
export const CAP_BLOCK_SUSPEND = 36
export const CAP_AUDIT_READ = 37
export const CAP_PERFMON = 38
export const CAP_BPF = 39
export const CAP_CHECKPOINT_RESTORE = 40

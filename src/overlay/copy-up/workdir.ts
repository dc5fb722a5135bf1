/**
 * The workdir: changes are built here before one rename or link publishes them. It also holds the
 * shared whiteout and the index. The layout is the kernel's: `workdir/work` for temporary objects
 * (emptied at every mount), `workdir/index` for the inodes of hard links.
 */

import {
  fchmodat,
  fchownat,
  fstatx,
  futimens,
  linkat,
  mkdirat,
  mknodat,
  openat,
  rmdirat,
  statxat,
  unlinkat,
  utimensat,
} from '../../sys/at.js'
import {
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_RDWR,
  O_TMPFILE,
  O_WRONLY,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  S_IFCHR,
  UTIME_OMIT,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close } from '../../sys/io.js'
import { geteuid } from '../../sys/proc.js'
import { Stat } from '../../sys/stat.js'
import { getxattrValue, listxattrNames, setxattrat } from '../../sys/xattr.js'
import type { Logger } from '../../log.js'
import { ACL_ACCESS } from '../owner/acl.js'
import { createMarkerFile } from '../layer/opaque-file.js'
import { renameWithOwnerAccess } from '../owner/owner-access.js'
import {
  registerRecordDirs,
  unregisterRecordDirs,
  type UnfinishedMove,
} from '../owner/owner-access-records.js'
import { YIELD, runTask, type IoTask } from '../jobs/task.js'
import type { OverlayXattrs } from '../layer/overlay-xattrs.js'
import type { ByteString, Result } from '../ops.js'
import type { WhiteoutForm } from '../options.js'
import { emptyWorkdir, finishMove, openSubdirectory, removeOrphanEntries } from './recover.js'
import { listChunk, openRead } from '../../sys/real-dir.js'
import { chooseForm } from '../layer/whiteout-form.js'
import { DOT_WHITEOUT, isActiveDotWhiteout, isWhiteout } from '../layer/whiteout.js'

/** The number of names that one job removes. */
const PIECE = 1000

const NAME_MAX = 255

const isNotEmpty = (result: Result): boolean => result === -E.ENOTEMPTY || result === -E.EEXIST

/** The attributes that a new O_TMPFILE file in `workdir/work` gets. */
export interface TmpfileDefaults {
  readonly uid: number
  readonly gid: number
  /**
   * A new file gets exactly the requested mode: no umask applies, and the directory has no default
   * ACL.
   */
  readonly keepsMode: boolean
}

const UNKNOWN_DEFAULTS: TmpfileDefaults = { uid: -1, gid: -1, keepsMode: false }

export class Workdir {
  /** `workdir/work`, open for reading. */
  readonly fd: number
  /** `workdir/index`, or -1 if hard links are not indexed. */
  indexFd = -1
  readonly form: Exclude<WhiteoutForm, 'auto'>
  /** Read once: no other process changes the directory while the union exists. */
  readonly tmpfileDefaults: TmpfileDefaults
  /** The workdir itself. The lock on it is held as long as this descriptor is open. */
  readonly #base: number
  readonly xattrs: OverlayXattrs
  readonly #log: Logger
  readonly #stat = new Stat()
  #counter = 0
  /**
   * The name of the shared whiteout, of which other whiteouts are hard links; '' if there is none.
   */
  #whiteout: ByteString = ''

  private constructor(
    base: number,
    fd: number,
    upperFd: number,
    form: Exclude<WhiteoutForm, 'auto'>,
    xattrs: OverlayXattrs,
    log: Logger,
  ) {
    this.#base = base
    this.fd = fd
    this.form = form
    this.xattrs = xattrs
    this.#log = log
    registerRecordDirs({ base, upperFd, workFd: fd, log })
    this.tmpfileDefaults = this.#readTmpfileDefaults()
  }

  /**
   * Creates and empties `workdir/work`, removes permission bits that an earlier mount added for one
   * call, and determines which form of whiteout the upper layer supports.
   *
   * @param base the workdir, open; on success `closeAll` closes it
   * @param upperFd the upper layer; must stay open as long as the workdir
   * @returns the workdir, or -errno
   */
  static open(
    base: number,
    upperFd: number,
    form: WhiteoutForm,
    xattrs: OverlayXattrs,
    log: Logger,
  ): Workdir | number {
    const { fd } = openSubdirectory(base, 'work')
    if (fd < 0) return fd
    const unhidden: UnfinishedMove[] = []
    const emptied = emptyWorkdir(base, fd, upperFd, log, unhidden)
    const chosen = emptied < 0 ? emptied : form === 'auto' ? chooseForm(fd, xattrs, log) : form
    if (typeof chosen === 'number') {
      close(fd)
      return chosen
    }
    const workdir = new Workdir(base, fd, upperFd, chosen, xattrs, log)
    for (const move of unhidden) finishMove(workdir, upperFd, move, log)
    return workdir
  }

  #readTmpfileDefaults(): TmpfileDefaults {
    const fd = openat(this.fd, '.', O_TMPFILE | O_WRONLY, 0o777)
    if (fd < 0) return UNKNOWN_DEFAULTS
    const st = this.#stat
    const stated = fstatx(fd, st)
    const listed = listxattrNames(fd, '')
    close(fd)
    if (stated < 0 || typeof listed === 'number') return UNKNOWN_DEFAULTS
    const keepsMode = (st.mode & 0o7777) === 0o777 && !listed.includes(ACL_ACCESS)
    return { uid: st.uid, gid: st.gid, keepsMode }
  }

  readonly #stageWhiteout = (fd: number, temp: ByteString): Result => this.#linkWhiteout(fd, temp)

  /** A new temporary name in `workdir/work` (kernel: ovl_tempname). */
  temp(): ByteString {
    return '#' + (++this.#counter).toString(16)
  }

  /**
   * Whether the file system stores times exactly: with nanoseconds, and after the year 2106. Tested
   * with a temporary file.
   */
  keepsTimes(): boolean {
    let fd = openat(this.fd, '.', O_TMPFILE | O_RDWR, 0o600)
    let name = ''
    if (fd < 0)
      name = this.stage(
        (at, temp) => (fd = openat(at, temp, O_CREAT | O_EXCL | O_RDWR, 0o600)),
      ).name
    if (fd < 0) return true
    const [sec, nsec] = [2 ** 32 + 1, 123_456_789]
    const st = new Stat()
    const asked = futimens(fd, 0, UTIME_OMIT, sec, nsec) >= 0 && fstatx(fd, st) >= 0
    close(fd)
    if (name !== '') this.discard(name)
    return !asked || (st.mtimeSec === sec && st.mtimeNsec === nsec)
  }

  /**
   * Creates an object under a temporary name. `create` is called again with another name while it
   * fails with EEXIST.
   */
  stage(create: (fd: number, name: ByteString) => Result): { name: ByteString; result: Result } {
    for (;;) {
      const name = this.temp()
      const result = create(this.fd, name)
      if (result !== -E.EEXIST) return { name, result }
    }
  }

  /** Removes a temporary object. A failure only wastes space until the next mount. */
  discard(name: ByteString): void {
    void this.#remove(name)
  }

  /**
   * Removes an entry of `workdir/work`, including a directory that holds nothing but whiteouts
   * (kernel: ovl_cleanup_whiteouts).
   */
  #remove(name: ByteString): Result {
    let result = unlinkat(this.fd, name)
    if (result === -E.EISDIR || result === -E.EPERM) result = rmdirat(this.fd, name)
    if (isNotEmpty(result)) {
      // The owner may have removed the permissions from the directory.
      const stated = geteuid() === 0 ? -1 : statxat(this.fd, name, this.#stat)
      const { mode } = this.#stat
      if (stated >= 0) void fchmodat(this.fd, name, 0o700)
      result = this.#removeWhiteouts(name)
      if (result < 0 && stated >= 0) void fchmodat(this.fd, name, mode & 0o7777)
    }
    if (result < 0 && result !== -E.ENOENT)
      this.#log.warn({ name, errno: -result }, 'cannot remove from the workdir')
    return result
  }

  /**
   * Removes a directory in `workdir/work` that holds only whiteouts.
   *
   * @returns -ENOTEMPTY if it holds anything else; the directory then still hides the same lower
   *   names. Any other -errno: the directory must not return to the union
   */
  #removeWhiteouts(name: ByteString): Result {
    const steps = this.#whiteoutsInPieces(name)
    for (let last: Result = 0; ;) {
      const { done, value } = steps.next(last)
      if (done === true) return value
      last = runTask(value)
    }
  }

  *#whiteoutsInPieces(name: ByteString): Generator<IoTask, Result, Result> {
    const dir = openRead(this.fd, name, O_DIRECTORY)
    if (dir < 0) return dir
    let result: Result
    try {
      const names: ByteString[] = []
      const visitor = { visit: (entry: ByteString) => names.push(entry) > 0 }
      let seen = 0
      while ((result = listChunk(dir, visitor)) > 0) {
        for (; seen < names.length; seen++) {
          const hides = this.#isWhiteoutEntry(dir, names[seen]!)
          if (hides <= 0) return hides < 0 ? hides : -E.ENOTEMPTY
        }
        yield YIELD
      }
      for (let at = 0; result >= 0 && at < names.length; at += PIECE)
        result = yield { kind: 'unlink', fd: dir, names: names.slice(at, at + PIECE) }
    } finally {
      close(dir)
    }
    if (result < 0) return result
    result = rmdirat(this.fd, name)
    if (!isNotEmpty(result)) return result
    // Another process has created an entry in between.
    const hidden = this.xattrs.setOpaque(this.fd, name)
    if (hidden < 0)
      this.#log.warn(
        { name, errno: -hidden },
        'cannot make a directory opaque that has lost its whiteouts',
      )
    return -E.ENOTEMPTY
  }

  /** Whether an entry of an upper directory is a whiteout, in any form. */
  #isWhiteoutEntry(dir: number, name: ByteString): Result {
    const stated = statxat(dir, name, this.#stat)
    if (stated < 0) return stated
    const white = isWhiteout(this.xattrs, dir, name, this.#stat, false)
    if (white !== 0 || !name.startsWith(DOT_WHITEOUT)) return white
    return isActiveDotWhiteout(this, false, dir, name)
  }

  /**
   * Creates a whiteout at (dirfd, name), and replaces an existing object in one step.
   *
   * @param existing the type of object that the upper directory has under that name
   */
  whiteout(dirfd: number, name: ByteString, existing: 'nothing' | 'file' | 'directory'): Result {
    if (this.form === 'wh') return this.#dotWhiteout(dirfd, name, existing)
    if (this.form === 'xattr') {
      const xattrSet = this.xattrs.setXattrWhiteouts(dirfd)
      if (xattrSet < 0) return xattrSet
    }
    if (existing === 'nothing') {
      const linked = this.#linkWhiteout(dirfd, name)
      if (linked !== -E.EXDEV) return linked
    }
    const staged = this.stage(this.#stageWhiteout)
    if (staged.result < 0) return staged.result
    const flags = existing === 'directory' ? RENAME_EXCHANGE : 0
    const result = renameWithOwnerAccess(this.fd, staged.name, dirfd, name, flags)
    if (result < 0) this.discard(staged.name)
    else if (existing === 'directory') return this.removeExchanged(staged.name, dirfd, name)
    return result
  }

  /**
   * Moves a directory out of the upper tree in one step and removes it, together with any whiteouts
   * in it.
   *
   * @returns -ENOTEMPTY if another process has added an entry; the directory is then moved back
   */
  removeDirectory(dirfd: number, name: ByteString): Result {
    const temp = this.temp()
    const result = renameWithOwnerAccess(dirfd, name, this.fd, temp, RENAME_NOREPLACE)
    if (result < 0 || this.#remove(temp) !== -E.ENOTEMPTY) return result
    const undone = renameWithOwnerAccess(this.fd, temp, dirfd, name, RENAME_NOREPLACE)
    return this.#logNotRemoved(temp, undone)
  }

  /**
   * As `removeDirectory`, for a directory that was exchanged with the object at (dirfd, name) and
   * is now `temp` in `workdir/work`.
   */
  removeExchanged(temp: ByteString, dirfd: number, name: ByteString): Result {
    if (this.#remove(temp) !== -E.ENOTEMPTY) return 0
    const undone = renameWithOwnerAccess(this.fd, temp, dirfd, name, RENAME_EXCHANGE)
    if (undone >= 0) this.discard(temp)
    return this.#logNotRemoved(temp, undone)
  }

  /**
   * As `removeExchanged`, in pieces.
   *
   * @param into returns the current descriptor of the parent directory
   */
  *removeExchangedInPieces(
    temp: ByteString,
    into: () => Result,
    name: ByteString,
  ): Generator<IoTask, Result, Result> {
    const removed = yield* this.#whiteoutsInPieces(temp)
    // Retries at once: the owner may not have read permission, and any other error occurs again.
    return removed < 0 ? this.removeExchanged(temp, into(), name) : 0
  }

  #logNotRemoved(name: ByteString, result: Result): Result {
    if (result < 0)
      this.#log.warn(
        { name, errno: -result },
        'cannot move a directory back: entries created in it are in the workdir',
      )
    return -E.ENOTEMPTY
  }

  /**
   * Creates an empty directory in `workdir/work` with the owner, mode, times and xattrs of another
   * directory.
   *
   * @returns its name, or -errno
   */
  stageDirectoryLike(fd: number): ByteString | number {
    if (fd < 0) return fd
    let result = fstatx(fd, this.#stat)
    if (result < 0) return result
    const st = this.#stat
    const staged = this.stage((workFd, temp) => mkdirat(workFd, temp, 0o700))
    if (staged.result < 0) return staged.result
    result = this.#copyXattrs(fd, staged.name)
    if (result >= 0) result = fchownat(this.fd, staged.name, st.uid, st.gid)
    if (result >= 0) result = fchmodat(this.fd, staged.name, st.mode & 0o7777)
    if (result >= 0)
      result = utimensat(this.fd, staged.name, st.atimeSec, st.atimeNsec, st.mtimeSec, st.mtimeNsec)
    if (result >= 0) return staged.name
    this.discard(staged.name)
    return result
  }

  /** Copies all xattrs of the directory `fd` (kernel: ovl_copy_xattr). */
  #copyXattrs(fd: number, temp: ByteString): Result {
    const names = listxattrNames(fd, '')
    if (typeof names === 'number') return names === -E.EOPNOTSUPP ? 0 : names
    for (const attr of names) {
      const value = getxattrValue(fd, '', attr)
      const result = typeof value === 'number' ? value : setxattrat(this.fd, temp, attr, value, 0)
      if (result < 0 && result !== -E.ENODATA && result !== -E.EOPNOTSUPP) return result
    }
    return 0
  }

  closeAll(): void {
    unregisterRecordDirs([this.fd])
    // If this fails, the next mount removes the whiteout.
    if (this.#whiteout !== '') void unlinkat(this.fd, this.#whiteout)
    this.#whiteout = ''
    if (this.indexFd >= 0) close(this.indexFd)
    close(this.fd)
    close(this.#base)
  }

  /**
   * Links the shared whiteout to (dirfd, name). Creates a new shared whiteout if there is none, or
   * if its link count is at the limit.
   */
  #linkWhiteout(dirfd: number, name: ByteString): Result {
    for (let tries = 0; tries < 3; tries++) {
      if (this.#whiteout === '') {
        const made = this.stage((fd, temp) => this.#makeWhiteout(fd, temp))
        if (made.result < 0) return made.result
        this.#whiteout = made.name
      }
      const result = linkat(this.fd, this.#whiteout, dirfd, name)
      if (result >= 0) return result
      if (result === -E.EPERM || result === -E.EOPNOTSUPP || result === -E.ENOSYS) {
        // The file system has no hard links, so each whiteout is an inode of its own. A form that
        // takes two steps must be created in `workdir/work`.
        if (this.form !== 'char' && dirfd !== this.fd) return -E.EXDEV
        return this.#makeWhiteout(dirfd, name)
      }
      if (result !== -E.EMLINK && result !== -E.ENOENT) return result
      // If this fails, the next mount removes the whiteout.
      if (result === -E.EMLINK) void unlinkat(this.fd, this.#whiteout)
      this.#whiteout = ''
    }
    return -E.EIO
  }

  #makeWhiteout(dirfd: number, name: ByteString): Result {
    if (this.form === 'char') return mknodat(dirfd, name, S_IFCHR, 0, 0)
    // A union that uses this layer as a lower layer must be able to read the xattr, which requires
    // read permission.
    const fd = openat(dirfd, name, O_CREAT | O_EXCL | O_WRONLY, 0o644)
    if (fd < 0) return fd
    close(fd)
    const result = this.xattrs.set(dirfd, name, 'whiteout', 'y')
    if (result < 0) this.discard(name)
    return result
  }

  /**
   * Creates `.wh.NAME` before it removes the upper object, so that the lower object never appears.
   */
  #dotWhiteout(
    dirfd: number,
    name: ByteString,
    existing: 'nothing' | 'file' | 'directory',
  ): Result {
    const dotName = '.wh.' + name
    const made = createMarkerFile(dirfd, dotName)
    if (made < 0) return made
    if (existing === 'nothing') return 0
    const result = existing === 'file' ? unlinkat(dirfd, name) : this.removeDirectory(dirfd, name)
    if (result >= 0) return result
    // Beside an existing object the `.wh.` file hides nothing.
    const undone = unlinkat(dirfd, dotName)
    if (undone < 0)
      this.#log.warn(
        { errno: -undone },
        'cannot remove the .wh. file of an object that was not removed',
      )
    return result
  }

  /** Removes a `.wh.NAME` file that hides the name. Returns whether there was such a file. */
  clearDotWhiteout(dirfd: number, name: ByteString): boolean {
    const dotName = DOT_WHITEOUT + name
    if (dotName.length > NAME_MAX || isActiveDotWhiteout(this, false, dirfd, dotName) <= 0)
      return false
    return unlinkat(dirfd, dotName) >= 0
  }

  /** Opens or creates `workdir/index`. */
  openIndex(base: number): Result {
    const { fd, fresh } = openSubdirectory(base, 'index')
    if (fd < 0) return fd
    this.indexFd = fd
    return fresh ? 0 : removeOrphanEntries(fd, this.xattrs, this.#log)
  }
}

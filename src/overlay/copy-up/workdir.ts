/**
 * The workdir: where changes are built before one rename or link publishes them, and where the
 * shared whiteout and the index live. The layout is the kernel's: `workdir/work` for temporary
 * objects (emptied at every mount), `workdir/index` for the inodes of hard links.
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
import { PAUSE, runTask, type IoTask } from '../jobs/task.js'
import type { OverlayXattrs } from '../layer/overlay-xattrs.js'
import type { ByteString, Result } from '../ops.js'
import type { WhiteoutForm } from '../options.js'
import { emptyWork, endMove, openPart, removeOrphans } from './recover.js'
import { listChunk, openRead } from '../layer/real-dir.js'
import { chooseForm } from '../layer/whiteout-form.js'
import { DOT_WHITEOUT, isActiveDotWhiteout, isWhiteout } from '../layer/whiteout.js'

/** So many names are removed at a time. */
const PIECE = 1000

const NAME_MAX = 255

const isNotEmpty = (result: Result): boolean => result === -E.ENOTEMPTY || result === -E.EEXIST

/** What a file has from the start that is made in `work` without a name. */
export interface Newborn {
  readonly uid: number
  readonly gid: number
  /**
   * It gets the mode that is asked for: there is no umask, and the directory has no default ACL.
   */
  readonly keepsMode: boolean
}

const UNKNOWN: Newborn = { uid: -1, gid: -1, keepsMode: false }

export class Workdir {
  /** `workdir/work`, open for reading. */
  readonly fd: number
  /** `workdir/index`, or -1 where hard links are not indexed. */
  indexFd = -1
  readonly form: Exclude<WhiteoutForm, 'auto'>
  /** Found out once: nobody else changes the directory while the union lives. */
  readonly newborn: Newborn
  /** The workdir itself: its lock lives as long as this is open. */
  readonly #base: number
  readonly xattrs: OverlayXattrs
  readonly #log: Logger
  readonly #stat = new Stat()
  #counter = 0
  /** The shared whiteout that others are hard links of, or ''. */
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
    this.newborn = this.#makeNewborn()
  }

  /**
   * Makes `workdir/work`, empties it, puts modes back that an earlier mount has lent, and finds out
   * which form of whiteout can be written.
   *
   * @param base the workdir, open; on success `closeAll` closes it
   * @param upperFd the upper layer, open as long as the workdir is
   * @returns the workdir, or -errno
   */
  static open(
    base: number,
    upperFd: number,
    form: WhiteoutForm,
    xattrs: OverlayXattrs,
    log: Logger,
  ): Workdir | number {
    const { fd } = openPart(base, 'work')
    if (fd < 0) return fd
    const unhidden: UnfinishedMove[] = []
    const emptied = emptyWork(base, fd, upperFd, log, unhidden)
    const chosen = emptied < 0 ? emptied : form === 'auto' ? chooseForm(fd, xattrs, log) : form
    if (typeof chosen === 'number') {
      close(fd)
      return chosen
    }
    const work = new Workdir(base, fd, upperFd, chosen, xattrs, log)
    for (const move of unhidden) endMove(work, upperFd, move, log)
    return work
  }

  #makeNewborn(): Newborn {
    const fd = openat(this.fd, '.', O_TMPFILE | O_WRONLY, 0o777)
    if (fd < 0) return UNKNOWN
    const st = this.#stat
    const stated = fstatx(fd, st)
    const listed = listxattrNames(fd, '')
    close(fd)
    if (stated < 0 || typeof listed === 'number') return UNKNOWN
    const keepsMode = (st.mode & 0o7777) === 0o777 && !listed.includes(ACL_ACCESS)
    return { uid: st.uid, gid: st.gid, keepsMode }
  }

  readonly #stageWhiteout = (fd: number, temp: ByteString): Result => this.#linkWhiteout(fd, temp)

  /** A name that is free in `work` (kernel: ovl_tempname). */
  temp(): ByteString {
    return '#' + (++this.#counter).toString(16)
  }

  /**
   * Whether the file system stores times as they are given: to the nanosecond, and beyond 2106.
   * Asked with a file that is made for it.
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
   * Makes something under a temporary name; `make` is tried again under another if that is taken.
   */
  stage(make: (fd: number, name: ByteString) => Result): { name: ByteString; result: Result } {
    for (;;) {
      const name = this.temp()
      const result = make(this.fd, name)
      if (result !== -E.EEXIST) return { name, result }
    }
  }

  /** Removes a temporary object; a failure only costs space until the next mount. */
  discard(name: ByteString): void {
    void this.#remove(name)
  }

  /**
   * Removes what lies in the workdir, with whiteouts where it is a directory, but nothing else
   * (kernel: ovl_cleanup_whiteouts).
   */
  #remove(name: ByteString): Result {
    let result = unlinkat(this.fd, name)
    if (result === -E.EISDIR || result === -E.EPERM) result = rmdirat(this.fd, name)
    if (isNotEmpty(result)) {
      // Its owner may have taken the rights from himself.
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
   * A directory of the workdir with all whiteouts that are in it.
   *
   * @returns -ENOTEMPTY where something else is there as well, and then it hides what it has
   *   hidden; another error: it is no directory of the union any more
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
          const hides = this.#isMark(dir, names[seen]!)
          if (hides <= 0) return hides < 0 ? hides : -E.ENOTEMPTY
        }
        yield PAUSE
      }
      for (let at = 0; result >= 0 && at < names.length; at += PIECE)
        result = yield { kind: 'unlink', fd: dir, names: names.slice(at, at + PIECE) }
    } finally {
      close(dir)
    }
    if (result < 0) return result
    result = rmdirat(this.fd, name)
    if (!isNotEmpty(result)) return result
    // Somebody has put something there since.
    const hidden = this.xattrs.setOpaque(this.fd, name)
    if (hidden < 0) this.#log.warn({ name, errno: -hidden }, 'a directory has lost its whiteouts')
    return -E.ENOTEMPTY
  }

  /** Whether an entry of an upper directory is a whiteout, in any form. */
  #isMark(dir: number, name: ByteString): Result {
    const stated = statxat(dir, name, this.#stat)
    if (stated < 0) return stated
    const white = isWhiteout(this.xattrs, dir, name, this.#stat, false)
    if (white !== 0 || !name.startsWith(DOT_WHITEOUT)) return white
    return isActiveDotWhiteout(this, false, dir, name)
  }

  /**
   * Puts a whiteout at (dirfd, name), replacing whatever is there in one step.
   *
   * @param there what the upper directory has under that name
   */
  whiteout(dirfd: number, name: ByteString, there: 'nothing' | 'file' | 'directory'): Result {
    if (this.form === 'wh') return this.#dotWhiteout(dirfd, name, there)
    if (this.form === 'xattr') {
      const marked = this.xattrs.setXattrWhiteouts(dirfd)
      if (marked < 0) return marked
    }
    if (there === 'nothing') {
      const linked = this.#linkWhiteout(dirfd, name)
      if (linked !== -E.EXDEV) return linked
    }
    const staged = this.stage(this.#stageWhiteout)
    if (staged.result < 0) return staged.result
    const flags = there === 'directory' ? RENAME_EXCHANGE : 0
    const result = renameWithOwnerAccess(this.fd, staged.name, dirfd, name, flags)
    if (result < 0) this.discard(staged.name)
    else if (there === 'directory') return this.removeReplaced(staged.name, dirfd, name)
    return result
  }

  /**
   * Puts a whiteout in the place of what is at (dirfd, name), which goes to the workdir.
   *
   * @returns the name that it has there, or -errno
   */
  setAside(dirfd: number, name: ByteString): ByteString | number {
    if (this.form === 'xattr') {
      const marked = this.xattrs.setXattrWhiteouts(dirfd)
      if (marked < 0) return marked
    }
    const staged = this.stage(this.#stageWhiteout)
    if (staged.result < 0) return staged.result
    const result = renameWithOwnerAccess(this.fd, staged.name, dirfd, name, RENAME_EXCHANGE)
    if (result >= 0) return staged.name
    this.discard(staged.name)
    return result
  }

  /**
   * Moves a directory out of the upper tree in one step and removes it, with the whiteouts that it
   * may still hold.
   *
   * @returns -ENOTEMPTY where somebody has put something else into it, and then it is where it was
   */
  removeDirectory(dirfd: number, name: ByteString): Result {
    const temp = this.temp()
    const result = renameWithOwnerAccess(dirfd, name, this.fd, temp, RENAME_NOREPLACE)
    if (result < 0 || this.#remove(temp) !== -E.ENOTEMPTY) return result
    const undone = renameWithOwnerAccess(this.fd, temp, dirfd, name, RENAME_NOREPLACE)
    return this.#putBack(temp, undone)
  }

  /**
   * The same for one that has changed places with what is at (dirfd, name), and is `temp` in the
   * workdir.
   */
  removeReplaced(temp: ByteString, dirfd: number, name: ByteString): Result {
    if (this.#remove(temp) !== -E.ENOTEMPTY) return 0
    const undone = renameWithOwnerAccess(this.fd, temp, dirfd, name, RENAME_EXCHANGE)
    if (undone >= 0) this.discard(temp)
    return this.#putBack(temp, undone)
  }

  /** The same in pieces. @param into tells the descriptor of the directory at that time */
  *removeReplacedInPieces(
    temp: ByteString,
    into: () => Result,
    name: ByteString,
  ): Generator<IoTask, Result, Result> {
    const removed = yield* this.#whiteoutsInPieces(temp)
    // One that its owner may not read; or it fails as it would at once.
    return removed < 0 ? this.removeReplaced(temp, into(), name) : 0
  }

  #putBack(name: ByteString, result: Result): Result {
    if (result < 0)
      this.#log.warn(
        { name, errno: -result },
        'what was put into a removed directory is in the workdir',
      )
    return -E.ENOTEMPTY
  }

  /**
   * A new empty directory in the workdir with the owner, mode, times and xattrs of another.
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

  /** All that the directory behind `fd` has (kernel: ovl_copy_xattr). */
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
    // The next mount removes it otherwise.
    if (this.#whiteout !== '') void unlinkat(this.fd, this.#whiteout)
    this.#whiteout = ''
    if (this.indexFd >= 0) close(this.indexFd)
    close(this.fd)
    close(this.#base)
  }

  /**
   * Links the shared whiteout to (dirfd, name), making a new one where there is none or it is full.
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
        // No hard links here: every whiteout is its own inode. One that takes two steps is made in
        // `work`.
        if (this.form !== 'char' && dirfd !== this.fd) return -E.EXDEV
        return this.#makeWhiteout(dirfd, name)
      }
      if (result !== -E.EMLINK && result !== -E.ENOENT) return result
      // The next mount removes it otherwise.
      if (result === -E.EMLINK) void unlinkat(this.fd, this.#whiteout)
      this.#whiteout = ''
    }
    return -E.EIO
  }

  #makeWhiteout(dirfd: number, name: ByteString): Result {
    if (this.form === 'char') return mknodat(dirfd, name, S_IFCHR, 0, 0)
    // Whoever reads it as a lower layer must be able to read the mark, and that goes by the mode.
    const fd = openat(dirfd, name, O_CREAT | O_EXCL | O_WRONLY, 0o644)
    if (fd < 0) return fd
    close(fd)
    const result = this.xattrs.set(dirfd, name, 'whiteout', 'y')
    if (result < 0) this.discard(name)
    return result
  }

  /** `.wh.NAME` first, so that at no time the lower object shows; then the upper one goes. */
  #dotWhiteout(dirfd: number, name: ByteString, there: 'nothing' | 'file' | 'directory'): Result {
    const mark = '.wh.' + name
    const made = createMarkerFile(dirfd, mark)
    if (made < 0) return made
    if (there === 'nothing') return 0
    const result = there === 'file' ? unlinkat(dirfd, name) : this.removeDirectory(dirfd, name)
    if (result >= 0) return result
    // Beside the object the mark hides nothing.
    const undone = unlinkat(dirfd, mark)
    if (undone < 0) this.#log.warn({ errno: -undone }, 'a mark stays where nothing was removed')
    return result
  }

  /** Takes a `.wh.NAME` away that hides the name; whether there was one. */
  clearDotWhiteout(dirfd: number, name: ByteString): boolean {
    const mark = DOT_WHITEOUT + name
    if (mark.length > NAME_MAX || isActiveDotWhiteout(this, false, dirfd, mark) <= 0) return false
    return unlinkat(dirfd, mark) >= 0
  }

  /** Opens or makes `workdir/index`. */
  openIndex(base: number): Result {
    const { fd, fresh } = openPart(base, 'index')
    if (fd < 0) return fd
    this.indexFd = fd
    return fresh ? 0 : removeOrphans(fd, this.xattrs, this.#log)
  }
}

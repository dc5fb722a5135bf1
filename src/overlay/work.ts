/**
 * The workdir: where changes are built before one rename or link publishes them, and where the shared
 * whiteout and the index live. The layout is the kernel's: `workdir/work` for temporary objects (emptied
 * at every mount), `workdir/index` for the inodes of hard links.
 */

import {
  fchmodat,
  fchownat,
  fstatx,
  linkat,
  mkdirat,
  mknodat,
  openat,
  statxat,
  unlinkat,
  utimensat,
} from '../sys/at.js'
import {
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_RDONLY,
  O_TMPFILE,
  O_WRONLY,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  S_IFCHR,
} from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { close } from '../sys/io.js'
import { geteuid } from '../sys/proc.js'
import { Stat } from '../sys/stat.js'
import { getxattrValue, listxattrNames, setxattrat } from '../sys/xattr.js'
import type { Logger } from '../log.js'
import { ACL_ACCESS } from './acl.js'
import { renameOwn } from './lend.js'
import type { MarkReader } from './marks.js'
import type { ByteString, Result } from './ops.js'
import type { WhiteoutForm } from './options.js'
import { listReal, removeTree } from './tree.js'

/** Left alone when the workdir is emptied: marks of features (kernel: ovl_workdir_cleanup_recurse). */
const INCOMPAT = 'incompat'

/**
 * Opens `work` or `index`, which is made where it is not there: without any permission, as the kernel's, unless
 * that would keep out its owner.
 */
function openPart(base: number, name: ByteString): { fd: Result; fresh: boolean } {
  const made = mkdirat(base, name, 0)
  if (made < 0 && made !== -E.EEXIST) return { fd: made, fresh: false }
  if (geteuid() !== 0) fchmodat(base, name, 0o700)
  return { fd: openat(base, name, O_RDONLY | O_DIRECTORY), fresh: made >= 0 }
}

/** What a file has from the start that is made in `work` without a name. */
export interface Newborn {
  readonly uid: number
  readonly gid: number
  /** It gets the mode that is asked for: there is no umask, and the folder has no default ACL. */
  readonly keepsMode: boolean
}

const UNKNOWN: Newborn = { uid: -1, gid: -1, keepsMode: false }

export class Workdir {
  /** `workdir/work`, open for reading. */
  readonly fd: number
  /** `workdir/index`, or -1 where hard links are not indexed. */
  indexFd = -1
  readonly form: Exclude<WhiteoutForm, 'auto'>
  /** Found out once: nobody else changes the folder while the union lives. */
  readonly newborn: Newborn
  /** The workdir itself: its lock lives as long as this is open. */
  readonly #base: number
  readonly #marks: MarkReader
  readonly #log: Logger
  readonly #stat = new Stat()
  #counter = 0
  /** The shared whiteout that others are hard links of, or ''. */
  #whiteout: ByteString = ''

  private constructor(
    base: number,
    fd: number,
    form: Exclude<WhiteoutForm, 'auto'>,
    marks: MarkReader,
    log: Logger,
  ) {
    this.#base = base
    this.fd = fd
    this.form = form
    this.#marks = marks
    this.#log = log
    this.newborn = this.#makeNewborn()
  }

  /**
   * Makes `workdir/work`, empties it, and finds out which form of whiteout can be written.
   *
   * @param base the workdir, open; on success `closeAll` closes it
   * @returns the workdir, or -errno
   */
  static open(base: number, form: WhiteoutForm, marks: MarkReader, log: Logger): Workdir | number {
    const { fd } = openPart(base, 'work')
    if (fd < 0) return fd
    const stale: ByteString[] = []
    listReal(fd, '', name => (name === INCOMPAT ? true : stale.push(name) > 0))
    for (const name of stale) {
      const result = removeTree(fd, name)
      if (result < 0) log.warn({ name, errno: -result }, 'stale entry of the workdir stays')
    }
    let chosen = form
    if (chosen === 'auto') {
      const probe = '#probe'
      const result = mknodat(fd, probe, S_IFCHR, 0, 0)
      if (result >= 0) unlinkat(fd, probe)
      chosen = result >= 0 ? 'char' : 'wh'
    }
    return new Workdir(base, fd, chosen, marks, log)
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

  /** Makes something under a temporary name; `make` is tried again under another if that is taken. */
  stage(make: (fd: number, name: ByteString) => Result): { name: ByteString; result: Result } {
    for (;;) {
      const name = this.temp()
      const result = make(this.fd, name)
      if (result !== -E.EEXIST) return { name, result }
    }
  }

  /** Removes a temporary object; a failure only costs space until the next mount. */
  discard(name: ByteString): void {
    const result = removeTree(this.fd, name)
    if (result < 0) this.#log.warn({ name, errno: -result }, 'cannot remove from the workdir')
  }

  /**
   * Puts a whiteout at (dirfd, name), replacing whatever is there in one step.
   *
   * @param there what the upper folder has under that name
   */
  whiteout(dirfd: number, name: ByteString, there: 'nothing' | 'file' | 'folder'): Result {
    if (this.form === 'wh') return this.#dotWhiteout(dirfd, name, there)
    if (this.form === 'xattr') {
      const marked = this.#marks.setXattrWhiteouts(dirfd)
      if (marked < 0) return marked
    }
    if (there === 'nothing') {
      const linked = this.#linkWhiteout(dirfd, name)
      if (linked !== -E.EXDEV) return linked
    }
    const staged = this.stage(this.#stageWhiteout)
    if (staged.result < 0) return staged.result
    const flags = there === 'folder' ? RENAME_EXCHANGE : 0
    const result = renameOwn(this.fd, staged.name, dirfd, name, flags)
    if (result < 0 || there === 'folder') this.discard(staged.name)
    return result
  }

  /**
   * Puts a whiteout in the place of what is at (dirfd, name), which goes to the workdir.
   *
   * @returns the name that it has there, or -errno
   */
  setAside(dirfd: number, name: ByteString): ByteString | number {
    if (this.form === 'xattr') {
      const marked = this.#marks.setXattrWhiteouts(dirfd)
      if (marked < 0) return marked
    }
    const staged = this.stage(this.#stageWhiteout)
    if (staged.result < 0) return staged.result
    const result = renameOwn(this.fd, staged.name, dirfd, name, RENAME_EXCHANGE)
    if (result >= 0) return staged.name
    this.discard(staged.name)
    return result
  }

  /**
   * Moves a folder out of the upper tree in one step and removes it, with the whiteouts that it may
   * still hold.
   */
  removeFolder(dirfd: number, name: ByteString): Result {
    const temp = this.temp()
    const result = renameOwn(dirfd, name, this.fd, temp, RENAME_NOREPLACE)
    if (result >= 0) this.discard(temp)
    return result
  }

  /**
   * A new empty folder in the workdir with the owner, mode, times and xattrs of another.
   *
   * @returns its name, or -errno
   */
  stageFolderLike(fd: number): ByteString | number {
    if (fd < 0) return fd
    let result = fstatx(fd, this.#stat)
    if (result < 0) return result
    const st = this.#stat
    const staged = this.stage((workFd, temp) => mkdirat(workFd, temp, 0o700))
    if (staged.result < 0) return staged.result
    const names = listxattrNames(fd, '')
    if (typeof names !== 'number')
      for (const attr of names) {
        const value = getxattrValue(fd, '', attr)
        if (typeof value !== 'number') setxattrat(this.fd, staged.name, attr, value, 0)
      }
    result = fchownat(this.fd, staged.name, st.uid, st.gid)
    if (result >= 0) result = fchmodat(this.fd, staged.name, st.mode & 0o7777)
    if (result >= 0)
      result = utimensat(this.fd, staged.name, st.atimeSec, st.atimeNsec, st.mtimeSec, st.mtimeNsec)
    if (result >= 0) return staged.name
    this.discard(staged.name)
    return result
  }

  closeAll(): void {
    if (this.#whiteout !== '') unlinkat(this.fd, this.#whiteout)
    this.#whiteout = ''
    if (this.indexFd >= 0) close(this.indexFd)
    close(this.fd)
    close(this.#base)
  }

  /** Links the shared whiteout to (dirfd, name), making a new one where there is none or it is full. */
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
        // No hard links here: every whiteout is its own inode.
        return this.#makeWhiteout(dirfd, name)
      }
      if (result !== -E.EMLINK && result !== -E.ENOENT) return result
      if (result === -E.EMLINK) unlinkat(this.fd, this.#whiteout)
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
    const result = this.#marks.set(dirfd, name, 'whiteout', 'y')
    if (result < 0) unlinkat(dirfd, name)
    return result
  }

  /** `.wh.NAME` first, so that at no time the lower object shows; then the upper one goes. */
  #dotWhiteout(dirfd: number, name: ByteString, there: 'nothing' | 'file' | 'folder'): Result {
    const mark = '.wh.' + name
    const fd = openat(dirfd, mark, O_CREAT | O_WRONLY, 0)
    if (fd < 0) return fd
    close(fd)
    if (there === 'nothing') return 0
    const result = there === 'file' ? unlinkat(dirfd, name) : this.removeFolder(dirfd, name)
    if (result < 0) unlinkat(dirfd, mark)
    return result
  }

  /** Takes a `.wh.NAME` away; whether there was one. */
  clearDotWhiteout(dirfd: number, name: ByteString): boolean {
    return unlinkat(dirfd, '.wh.' + name) >= 0
  }

  /** Opens or makes `workdir/index`. */
  openIndex(base: number): Result {
    const { fd, fresh } = openPart(base, 'index')
    if (fd < 0) return fd
    this.indexFd = fd
    if (fresh) return 0
    // An entry that no name of the union leads to any more was left by a crash (kernel: orphan index).
    const orphans: ByteString[] = []
    listReal(fd, '', name => {
      if (statxat(fd, name, this.#stat) < 0 || this.#stat.isDir || this.#stat.nlink !== 1)
        return true
      const nlink = this.#marks.value(fd, name, 'nlink')
      if (nlink !== null && this.#stat.nlink + parseNlink(nlink) <= 0) orphans.push(name)
      return true
    })
    for (const name of orphans) unlinkat(fd, name)
    return 0
  }
}

/** The number in an `overlay.nlink` mark (`U+0`, `U-1`): union links minus the upper inode's. */
export function parseNlink(value: string): number {
  const match = /^U([+-]\d+)$/.exec(value.replace(/\0+$/, ''))
  return match === null ? 0 : Number(match[1])
}

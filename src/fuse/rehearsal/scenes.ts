/** What is practised: requests of all common kinds, in the order in which the kernel sends them. */

import { ROOT_ID, SetAttrValid } from '../../overlay/ops.js'
import { O_CREAT, O_RDWR, O_WRONLY } from '../../sys/constants.js'
import {
  CREATE_IN_SIZE,
  ENTRY_OUT_SIZE,
  GETATTR_IN_SIZE,
  GETXATTR_IN_SIZE,
  LINK_IN_SIZE,
  MKDIR_IN_SIZE,
  MKNOD_IN_SIZE,
  Opcode,
  OPEN_IN_SIZE,
  OUT_HEADER_SIZE,
  READ_IN_SIZE,
  RELEASE_IN_SIZE,
  RENAME2_IN_SIZE,
  SETATTR_IN_SIZE,
  STATX_IN_SIZE,
  WRITE_CACHE,
  WRITE_IN_SIZE,
} from '../abi.js'
import type { Asker } from './asker.js'
import { fileName, FILES, lowerName, MERGED, SYMLINK, TIME } from './stage.js'

/** Words of struct fuse_setattr_in. */
const MTIME_WORD = 10
const MODE_WORD = 17
const SETATTR_WORDS = SETATTR_IN_SIZE / 4
/** Files that are changed beside the one that a turn is about. */
const OTHERS = 4
/** What programs do most: files that are read, and that are made, for each that is copied up. */
const LOOKS = 4
const MADE = 2
/** Folders in each folder that is made. */
const EMPTY = 4
const DATA = 'practice '.repeat(400)

const setattr = (asker: Asker, node: number, valid: number, at = 0, value = 0): void => {
  const words: number[] = Array.from({ length: SETATTR_WORDS }, () => 0)
  words[at] = value
  words[0] = valid
  asker.ask(Opcode.SETATTR, node, SETATTR_IN_SIZE, words)
}

/** @param late whether the kernel keeps times, and says them with every change */
const chmod = (asker: Asker, node: number, mode: number, late: boolean): void => {
  setattr(asker, node, SetAttrValid.MODE | (late ? SetAttrValid.CTIME : 0), MODE_WORD, mode)
}

/** As the kernel brings the times that it has kept: of an open file, or of one that is not. */
const setTimes = (asker: Asker, node: number, open: boolean): void => {
  const { MTIME, CTIME, FH } = SetAttrValid
  setattr(asker, node, MTIME | CTIME | (open ? FH : 0), MTIME_WORD, TIME)
}

/** What programs set that unpack or copy: owner, group, and times. */
const setOwner = (asker: Asker, node: number): void => {
  const { UID, GID, KILL_SUIDGID, ATIME, MTIME, ATIME_NOW, MTIME_NOW } = SetAttrValid
  setattr(asker, node, UID | GID | KILL_SUIDGID)
  setattr(asker, node, MTIME, MTIME_WORD, TIME)
  setattr(asker, node, ATIME | MTIME, MTIME_WORD, TIME)
  setattr(asker, node, ATIME | MTIME | ATIME_NOW | MTIME_NOW)
}

const getattr = (asker: Asker, node: number): void => {
  asker.ask(Opcode.GETATTR, node, GETATTR_IN_SIZE, [])
}

/** OPEN, READ and RELEASE; or without READ. */
const openOnce = (asker: Asker, node: number, flags: number, read: boolean): void => {
  const opens = !asker.noOpen
  if (opens && asker.ask(Opcode.OPEN, node, OPEN_IN_SIZE, [flags]) <= OUT_HEADER_SIZE) return
  const fh = opens ? asker.number(0) : 0
  if (read) asker.ask(Opcode.READ, node, READ_IN_SIZE, [fh, 0, 0, 0, DATA.length])
  if (opens) asker.ask(Opcode.RELEASE, node, RELEASE_IN_SIZE, [fh])
}

const unlink = (asker: Asker, folder: number, name: string): void => {
  asker.ask(Opcode.UNLINK, folder, 0, [], `${name}\0`)
}

/** Looks a file up and reads it, and what there is none of. */
const look = (asker: Asker, folder: number, i: number): number => {
  asker.lookup(folder, `none-${i}`)
  const node = asker.lookup(folder, fileName(i))
  getattr(asker, node)
  openOnce(asker, node, 0, true)
  return node
}

/** Makes a file, changes it, and removes it. */
const make = (asker: Asker, folder: number, i: number, late: boolean): void => {
  const name = `new-${i}`
  asker.lookup(folder, name)
  const flags = O_CREAT | O_WRONLY
  const made = asker.ask(Opcode.CREATE, folder, CREATE_IN_SIZE, [flags, 0o100644], `${name}\0`)
  if (made <= OUT_HEADER_SIZE) return
  const node = asker.number(0)
  const fh = asker.number(ENTRY_OUT_SIZE)
  asker.ask(Opcode.GETXATTR, node, GETXATTR_IN_SIZE, [0], 'security.capability\0')
  const words = [fh, 0, 0, 0, DATA.length, late ? WRITE_CACHE : 0]
  asker.ask(Opcode.WRITE, node, WRITE_IN_SIZE, words, DATA)
  if (late) setTimes(asker, node, true)
  asker.ask(Opcode.RELEASE, node, RELEASE_IN_SIZE, [fh])
  getattr(asker, folder)
  chmod(asker, node, 0o600, late)
  if (late) setTimes(asker, node, false)
  setOwner(asker, node)
  asker.lookup(folder, `${name}.renamed`)
  const names = `${name}\0${name}.renamed\0`
  asker.ask(Opcode.RENAME2, folder, RENAME2_IN_SIZE, [folder], names)
  getattr(asker, folder)
  openOnce(asker, node, O_RDWR, true)
  unlink(asker, folder, `${name}.renamed`)
  if (late) setTimes(asker, node, false)
  asker.forget(node)
}

const chmodIn = (asker: Asker, folder: number, name: string, late: boolean): void => {
  const node = asker.lookup(folder, name)
  chmod(asker, node, 0o600, late)
  asker.forget(node)
}

/** Copies a file up for whoever opens it for writing. */
const openIn = (asker: Asker, folder: number, name: string): void => {
  const node = asker.lookup(folder, name)
  openOnce(asker, node, O_WRONLY, false)
  asker.forget(node)
}

type Restore = (folder: string, name: string) => void

/** Where things are played: `restore` puts files back, and `late` is whether the kernel writes back. */
interface Play {
  readonly asker: Asker
  readonly late: boolean
  readonly restore: Restore
}

/** Copies a file up, makes another, and removes the first. */
const change = ({ asker, late, restore }: Play, folder: number, node: number, i: number): void => {
  if (late) setTimes(asker, node, false)
  chmod(asker, node, 0o600, late)
  getattr(asker, node)
  openOnce(asker, node, O_WRONLY, false)
  make(asker, folder, i, late)
  unlink(asker, folder, fileName(i))
  asker.forget(node)
  restore(MERGED, fileName(i))
}

/** Copies a few files up, and removes one that is not. */
const changeOthers = ({ asker, late, restore }: Play, folder: number, i: number): void => {
  for (let n = 1; n <= OTHERS; n++) {
    const name = fileName((i + n) % FILES)
    if (n === 1) openIn(asker, folder, name)
    else if (n < OTHERS) chmodIn(asker, folder, name, late)
    else unlink(asker, folder, name)
    restore(MERGED, name)
  }
}

/** Runs something with a folder that is looked up for it, and given back. */
const within = (asker: Asker, name: string, scene: (folder: number) => void): boolean => {
  const folder = asker.lookup(ROOT_ID, name)
  if (folder === 0) return false
  getattr(asker, folder)
  scene(folder)
  asker.forget(folder)
  return true
}

/** Lists a folder, as programs do that look at all of it. */
const list = (asker: Asker, folder: number): void => {
  asker.list(folder, Opcode.READDIRPLUS)
  asker.list(folder, Opcode.READDIR)
  asker.ask(Opcode.STATX, folder, STATX_IN_SIZE, [])
  asker.ask(Opcode.LISTXATTR, folder, GETXATTR_IN_SIZE, [1024])
}

const readLink = (asker: Asker, folder: number): void => {
  const link = asker.lookup(folder, SYMLINK)
  asker.ask(Opcode.READLINK, link, 0, [])
  asker.forget(link)
}

/** The node of what a request makes; 0: it can't be made. */
const put = (
  asker: Asker,
  opcode: number,
  folder: number,
  rest: [number, number[], string],
): number => (asker.ask(opcode, folder, ...rest) > OUT_HEADER_SIZE ? asker.number(0) : 0)

/** A file, another name for it, and one that is taken from it by a third; a symlink. */
const makeLinks = (asker: Asker, folder: number): void => {
  const file = put(asker, Opcode.MKNOD, folder, [MKNOD_IN_SIZE, [0o100644], 'file\0'])
  asker.forget(put(asker, Opcode.LINK, folder, [LINK_IN_SIZE, [file], 'linked\0']))
  getattr(asker, file)
  asker.forget(file)
  const other = put(asker, Opcode.MKNOD, folder, [MKNOD_IN_SIZE, [0o100644], 'other\0'])
  asker.ask(Opcode.RENAME2, folder, RENAME2_IN_SIZE, [folder], 'other\0linked\0')
  asker.forget(other)
  for (const name of ['symlink', 'another']) {
    const link = put(asker, Opcode.SYMLINK, folder, [0, [], `${name}\0file\0`])
    asker.ask(Opcode.READLINK, link, 0, [])
    asker.forget(link)
  }
  for (const name of ['file', 'linked', 'symlink', 'another']) unlink(asker, folder, name)
}

/** A file with more in it than goes through a buffer. */
const writeMuch = (asker: Asker, folder: number): void => {
  const node = put(asker, Opcode.CREATE, folder, [
    CREATE_IN_SIZE,
    [O_CREAT | O_WRONLY, 0o100644],
    'much\0',
  ])
  const fh = asker.number(ENTRY_OUT_SIZE)
  asker.writeThroughLoop(node, fh)
  asker.ask(Opcode.RELEASE, node, RELEASE_IN_SIZE, [fh])
  unlink(asker, folder, 'much')
  asker.forget(node)
}

const makeEmpty = (asker: Asker, parent: number): void => {
  const folder = put(asker, Opcode.MKDIR, parent, [MKDIR_IN_SIZE, [0o755], 'empty\0'])
  asker.ask(Opcode.RMDIR, parent, 0, [], 'empty\0')
  asker.forget(folder)
}

/**
 * A folder of the upper layer alone, and what is in it.
 *
 * @param much whether a lot is written, as the kernel does when it writes back
 */
const makeFolder = (asker: Asker, parent: number, late: boolean, much: boolean): void => {
  const folder = put(asker, Opcode.MKDIR, parent, [MKDIR_IN_SIZE, [0o755], 'folder\0'])
  if (folder === 0) return
  make(asker, folder, 0, late)
  if (much) writeMuch(asker, folder)
  makeLinks(asker, folder)
  for (let i = 0; i < EMPTY; i++) makeEmpty(asker, folder)
  list(asker, folder)
  asker.ask(Opcode.RMDIR, parent, 0, [], 'folder\0')
  asker.forget(folder)
}

/** Everything with one file of the merged folder, and some with others. */
export const playFile = (play: Play, i: number): void => {
  const { asker, late } = play
  within(asker, MERGED, folder => {
    for (let n = 1; n < LOOKS; n++) asker.forget(look(asker, folder, (i + n) % FILES))
    const node = look(asker, folder, i)
    for (let n = 1; n < MADE; n++) make(asker, folder, i + n, late)
    change(play, folder, node, i)
    changeOthers(play, folder, i)
  })
  const lower = asker.lookup(ROOT_ID, lowerName(i))
  for (const more of [1, 2]) {
    within(asker, lowerName(i + more), folder => asker.forget(look(asker, folder, i)))
  }
  asker.forget(lower)
}

/** Nothing but copies and whiteouts, in the merged folder. */
export const changeMany = (play: Play, i: number): void => {
  within(play.asker, MERGED, folder => {
    for (let n = 0; n < 3; n++) changeOthers(play, folder, i + n * OTHERS)
  })
}

/** A folder of the lower layer, and then one that is copied up with a file, or to remove one. */
export const playLower = ({ asker, late, restore }: Play, i: number): void => {
  within(asker, lowerName(i), folder => {
    list(asker, folder)
    const known = asker.lookup(folder, fileName(i))
    list(asker, folder)
    asker.forget(known)
    readLink(asker, folder)
    asker.throughLoop(folder)
  })
  for (const call of [chmodIn, unlink]) {
    within(asker, lowerName(i), folder => call(asker, folder, fileName(i), late))
    restore(lowerName(i), fileName(i))
  }
}

/** A folder of the lower layer is removed with all that is in it. */
export const removeLower = ({ asker, restore }: Play, i: number): void => {
  const name = lowerName(i)
  within(asker, name, folder => {
    list(asker, folder)
    for (let n = 0; n < FILES; n++) {
      const node = asker.lookup(folder, fileName(n))
      unlink(asker, folder, fileName(n))
      asker.forget(node)
    }
    unlink(asker, folder, SYMLINK)
    asker.ask(Opcode.RMDIR, ROOT_ID, 0, [], `${name}\0`)
  })
  restore('.', name)
}

/** The root, the merged folder, and new ones in it. */
export const playMerged = ({ asker, late }: Play): void => {
  list(asker, ROOT_ID)
  within(asker, MERGED, folder => {
    list(asker, folder)
    for (let n = 0; n < 2; n++) makeFolder(asker, folder, late, late && n > 0)
  })
}

/** One of this program's own folders, for reading. False: there is none. */
export const readFolder = (asker: Asker, name: string): boolean =>
  within(asker, name, folder => {
    list(asker, folder)
    asker.lookup(folder, `${name}.none`)
  })

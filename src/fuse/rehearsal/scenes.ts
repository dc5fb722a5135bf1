/** What is practised: requests of all common kinds, in the order in which the kernel sends them. */

import { ROOT_ID, SetAttrValid } from '../../overlay/ops.js'
import { O_CREAT, O_RDWR, O_WRONLY } from '../../sys/constants.js'
import {
  CREATE_IN_SIZE,
  ENTRY_OUT_SIZE,
  GETATTR_IN_SIZE,
  GETXATTR_IN_SIZE,
  MKDIR_IN_SIZE,
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
import { fileName, FILES, lowerName, MERGED, SYMLINK } from './stage.js'

/** Words of struct fuse_setattr_in. */
const MTIME_WORD = 10
const MODE_WORD = 17
const SETATTR_WORDS = SETATTR_IN_SIZE / 4
/** Requests that come one after the other, half as many as that. */
const IN_A_ROW = 8
/** Files that are changed beside the one that a turn is about. */
const OTHERS = 4
/** What programs do most: files that are read, and that are made, for each that is copied up. */
const LOOKS = 4
const MADE = 2
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
  setattr(asker, node, MTIME | CTIME | (open ? FH : 0), MTIME_WORD, 1_000_000_000)
}

/** What programs set that unpack or copy: owner, group, and times. */
const setOwner = (asker: Asker, node: number): void => {
  const { UID, GID, KILL_SUIDGID, ATIME, MTIME, ATIME_NOW, MTIME_NOW } = SetAttrValid
  setattr(asker, node, UID | GID | KILL_SUIDGID)
  setattr(asker, node, MTIME, MTIME_WORD, 1_000_000_000)
  setattr(asker, node, ATIME | MTIME, MTIME_WORD, 1_000_000_000)
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
  asker.forget(node)
}

const chmodIn = (asker: Asker, folder: number, name: string, late: boolean): void => {
  const node = asker.lookup(folder, name)
  chmod(asker, node, 0o600, late)
  asker.forget(node)
}

type Restore = (folder: string, name: string) => void

/** Where things are played: `restore` puts files back, and `late` is whether the kernel writes back. */
interface Play {
  readonly asker: Asker
  readonly late: boolean
  readonly restore: Restore
}

/** Copies a file up, and removes it. */
const change = ({ asker, late, restore }: Play, folder: number, node: number, i: number): void => {
  chmod(asker, node, 0o600, late)
  openOnce(asker, node, O_WRONLY, false)
  unlink(asker, folder, fileName(i))
  asker.forget(node)
  restore(MERGED, fileName(i))
}

/** Copies a few files up, and removes one that is not. */
const changeOthers = ({ asker, late, restore }: Play, folder: number, i: number): void => {
  for (let n = 1; n <= OTHERS; n++) {
    const name = fileName((i + n) % FILES)
    if (n < OTHERS) chmodIn(asker, folder, name, late)
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

/** A folder of the upper layer alone, and files in it. */
const makeFolder = (asker: Asker, parent: number, late: boolean): void => {
  const made = asker.ask(Opcode.MKDIR, parent, MKDIR_IN_SIZE, [0o755], 'folder\0')
  if (made <= OUT_HEADER_SIZE) return
  const folder = asker.number(0)
  for (let i = 0; i < 4; i++) make(asker, folder, i, late)
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
    for (let n = 0; n < MADE; n++) make(asker, folder, i + n, late)
    change(play, folder, node, i)
    changeOthers(play, folder, i)
  })
  const lower = asker.lookup(ROOT_ID, lowerName(i))
  for (const more of [1, 2]) {
    within(asker, lowerName(i + more), folder => asker.forget(look(asker, folder, i)))
  }
  asker.forget(lower)
}

/** A folder of the lower layer, and then one that is copied up with a file, or to remove one. */
export const playLower = ({ asker, late, restore }: Play, i: number): void => {
  within(asker, lowerName(i), folder => {
    list(asker, folder)
    const known = asker.lookup(folder, fileName(i))
    list(asker, folder)
    asker.forget(known)
    readLink(asker, folder)
    asker.throughLoop(folder, IN_A_ROW)
  })
  for (const call of [chmodIn, unlink]) {
    within(asker, lowerName(i), folder => call(asker, folder, fileName(i), late))
    restore(lowerName(i), fileName(i))
  }
}

/** The merged folder, and a new one in it. */
export const playMerged = ({ asker, late }: Play): void => {
  within(asker, MERGED, folder => {
    list(asker, folder)
    makeFolder(asker, folder, late)
  })
}

/** One of this program's own folders, for reading. False: there is none. */
export const readFolder = (asker: Asker, name: string): boolean =>
  within(asker, name, folder => {
    list(asker, folder)
    asker.lookup(folder, `${name}.none`)
  })

/**
 * Nodes: the union's inodes. A directory has the stack of real directories under it; anything else
 * has the one real file that provides it, and the names it goes by.
 *
 * A node lives while the transport counts lookups of it, while it has known children, and while it
 * is open; what keeps it is checked in one place, `NodeTable.release`.
 */

import { S_IFDIR, S_IFREG } from '../../sys/constants.js'
import type { Ino } from '../../sys/stat.js'
import type { Identity, InodeKey } from '../layer/real-identity.js'
import type { RealDir } from '../layer/layer.js'
import type { Link, Links } from './links.js'
import { Pending, type ByteString, type Fh, type Job, type NodeId } from '../ops.js'

/** One name of a file that has, or had, several. */
export type NodeLink = Link<Node>
export type NodeLinks = Links<Node>

/** A copy-up whose data is still being copied. */
export interface CopyUpJob {
  readonly job: Job
}

/** Virtual inode flags (kernel: `overlay.protattr`). */
export const Protect = { IMMUTABLE: 1, APPEND: 2 } as const

/** A file of a layer, by its name. */
export interface RealFile extends Identity {
  readonly dir: RealDir
  readonly name: ByteString
}

/**
 * What few nodes have. It is made when the first of it is set: there may be millions of nodes, and
 * most are files of a lower layer that were looked at and no more.
 */
class RareFields {
  defaultAcl: Buffer | null | undefined = undefined
  metacopy = false
  data: RealFile | null = null
  protect = 0
  links: NodeLinks | null = null
  nlinkAdjust = 0
  indexKey: string | null = null
  lowerKey: InodeKey | null = null
  lowerLayer = -1
  lowerBirth = 0
  upperKey: InodeKey | null = null
  orphanFd = -1
  flushed = false
  capable = false
  superseded = false
  job: CopyUpJob | null = null
  busy: Job | null = null
  bulky = false
  staleNames: Set<ByteString> | null = null
  prepared = false
}

/** What all others have. */
const DEFAULTS: Readonly<RareFields> = Object.freeze(new RareFields())

/** The stack of all that are no directories. */
const NO_DIRS: RealDir[] = []

export class Node implements Identity {
  readonly id: NodeId
  /** S_IFMT bits. */
  readonly type: number
  /** The inode number that is shown, constant over copy-up. */
  ino: Ino
  /** How many lookups the transport has not taken back. */
  lookups = 0
  /** Null for the root and for whatever has no name any more. */
  parent: Node | null = null
  name: ByteString = ''
  unlinked = false

  /** Directories: what it is merged from, top first. Empty for other types. */
  dirs: RealDir[]
  /** Directories: children that are known. */
  children: Map<ByteString, Node> | null = null

  /** The real object is in the upper layer. */
  upper = false
  /** Non-directories that a lower layer provides, or provided: where. */
  lowerDir: RealDir | null = null
  lowerName: ByteString = ''
  /**
   * A directory, or a file by a name, that a lower layer has too: removing it takes a whiteout.
   * Undefined: not known.
   */
  lowerPositive: boolean | undefined = undefined
  /** The inode number is a lower object's, although the upper layer has it (`overlay.origin`). */
  hasOrigin = false
  /** Open files. */
  handles: FileHandle[] | null = null
  /**
   * Its size as it was told last, at most `UNREAD_MAX`; -1: it was opened, so the transport may
   * have data of it.
   */
  unread = 0
  /** Which version of the real file was told (lower-version.ts); 0: none that could be compared. */
  version = 0
  /** The real object, of all but directories. */
  real: Ino = 0
  birth = 0
  /** Files: where `resolveMetacopy` looks from; null: it has done so, or need not. */
  dataParent: Node | null = null

  #rare: RareFields = DEFAULTS

  /** @param dirs for directories */
  constructor(id: NodeId, type: number, ino: Ino, dirs: RealDir[] = NO_DIRS) {
    this.id = id
    this.type = type
    this.ino = ino
    this.dirs = dirs
  }

  /** Its own. */
  #own(): RareFields {
    if (this.#rare === DEFAULTS) this.#rare = new RareFields()
    return this.#rare
  }

  /**
   * Directories: the default ACL (xattr bytes), null for none, undefined while unknown. Only the
   * union changes it, and drops this when it does.
   */
  get defaultAcl(): Buffer | null | undefined {
    return this.#rare.defaultAcl
  }
  set defaultAcl(value) {
    if (value !== this.#rare.defaultAcl) this.#own().defaultAcl = value
  }
  /** Metadata-only copy (`overlay.metacopy`): the data is in a lower file of its own. */
  get metacopy(): boolean {
    return this.#rare.metacopy
  }
  set metacopy(value) {
    if (value !== this.#rare.metacopy) this.#own().metacopy = value
  }
  /** Which that is. */
  get data(): RealFile | null {
    return this.#rare.data
  }
  set data(value) {
    if (value !== this.#rare.data) this.#own().data = value
  }
  /** Virtual immutable and append-only bits. */
  get protect(): number {
    return this.#rare.protect
  }
  set protect(value) {
    if (value !== this.#rare.protect) this.#own().protect = value
  }
  /** Files with several links: all the names that are known. Null for files with one. */
  get links(): NodeLinks | null {
    return this.#rare.links
  }
  set links(value) {
    if (value !== this.#rare.links) this.#own().links = value
  }
  /** What to add to the real link count to get the union's. */
  get nlinkAdjust(): number {
    return this.#rare.nlinkAdjust
  }
  set nlinkAdjust(value) {
    if (value !== this.#rare.nlinkAdjust) this.#own().nlinkAdjust = value
  }
  /** The name of this inode in `workdir/index`, where it has one. */
  get indexKey(): string | null {
    return this.#rare.indexKey
  }
  set indexKey(value) {
    if (value !== this.#rare.indexKey) this.#own().indexKey = value
  }
  /** Key under which it is registered: in the lower layer, and in the upper one. */
  get lowerKey(): InodeKey | null {
    return this.#rare.lowerKey
  }
  set lowerKey(value) {
    if (value !== this.#rare.lowerKey) this.#own().lowerKey = value
  }
  get lowerLayer(): number {
    return this.#rare.lowerLayer
  }
  set lowerLayer(value) {
    if (value !== this.#rare.lowerLayer) this.#own().lowerLayer = value
  }
  /** What tells that inode from others that had its number, or have it. */
  get lowerBirth(): number {
    return this.#rare.lowerBirth
  }
  set lowerBirth(value) {
    if (value !== this.#rare.lowerBirth) this.#own().lowerBirth = value
  }
  get upperKey(): InodeKey | null {
    return this.#rare.upperKey
  }
  set upperKey(value) {
    if (value !== this.#rare.upperKey) this.#own().upperKey = value
  }
  /** Keeps the real object of an unlinked node reachable (O_PATH), or -1. */
  get orphanFd(): number {
    return this.#rare.orphanFd
  }
  set orphanFd(value) {
    if (value !== this.#rare.orphanFd) this.#own().orphanFd = value
  }
  /** The kernel has just written back what it had cached of this file. */
  get flushed(): boolean {
    return this.#rare.flushed
  }
  set flushed(value) {
    if (value !== this.#rare.flushed) this.#own().flushed = value
  }
  /** It has been seen with a capability. */
  get capable(): boolean {
    return this.#rare.capable
  }
  set capable(value) {
    if (value !== this.#rare.capable) this.#own().capable = value
  }
  /**
   * Another node has taken its names, since the real file was changed by somebody else
   * (lower-version.ts).
   */
  get superseded(): boolean {
    return this.#rare.superseded
  }
  set superseded(value) {
    if (value !== this.#rare.superseded) this.#own().superseded = value
  }

  /** A copy-up whose data is on its way. */
  get job(): CopyUpJob | null {
    return this.#rare.job
  }
  set job(value) {
    if (value !== this.#rare.job) this.#own().job = value
  }

  /** A job that changes its data, for which other changes wait. */
  get busy(): Job | null {
    return this.#rare.busy
  }
  set busy(value) {
    if (value !== this.#rare.busy) this.#own().busy = value
  }
  /** It is removed, and to give its space back may take long. */
  get bulky(): boolean {
    return this.#rare.bulky
  }
  set bulky(value) {
    if (value !== this.#rare.bulky) this.#own().bulky = value
  }

  /**
   * Directories: names of which the transport knows another node than they have by now
   * (lower-version.ts:dropName).
   */
  get staleNames(): Set<ByteString> | null {
    return this.#rare.staleNames
  }
  set staleNames(value) {
    if (value !== this.#rare.staleNames) this.#own().staleNames = value
  }

  /**
   * A job has just done what takes long of a change, as far as it can (truncate.ts,
   * clear-whiteouts.ts): the rest is done at once.
   */
  get prepared(): boolean {
    return this.#rare.prepared
  }
  set prepared(value) {
    if (value !== this.#rare.prepared) this.#own().prepared = value
  }

  get isDir(): boolean {
    return this.type === S_IFDIR
  }

  get isReg(): boolean {
    return this.type === S_IFREG
  }

  /** The upper layer's directory, or null while the directory has not been copied up. */
  get upperDir(): RealDir | null {
    const top = this.dirs[0]
    return top !== undefined && top.layer.index === 0 ? top : null
  }

  /** A layer has another directory by now in the place of one that it is merged from. */
  get hasStale(): boolean {
    return this.dirs.length > 1 && this.dirs.some(real => real.stale)
  }

  /**
   * Its number is not its upper object's own: the directory that holds it must be marked impure.
   */
  get hasForeignIno(): boolean {
    return this.isDir ? this.dirs.length > 1 : this.hasOrigin
  }

  /** More than one layer, or a lower one: kernel's ovl_type_merge_or_lower(). */
  get mergeOrLower(): boolean {
    return this.dirs.length > 1 || !this.upper
  }
}

/**
 * For whoever is about to change a file's data or attributes.
 *
 * @throws Pending while a job changes them: its real inode is locked
 */
export function throwIfBusy(node: Node): void {
  const { busy } = node
  if (busy === null) return
  // How that ends is not the affair of who waits.
  const over: Job = { onDone: callback => busy.onDone(() => callback(0)) }
  throw new Pending(over, false)
}

/** Whether `node` is `directory` or lies below it. */
export function isWithin(node: Node, directory: Node): boolean {
  for (let at: Node | null = node; at !== null; at = at.parent) if (at === directory) return true
  return false
}

/** An open file. The table of open files (file/handles.ts) has it under its number. */
export class FileHandle {
  readonly fh: Fh
  readonly node: Node
  /**
   * The real file; replaced when the node is copied up. -1: it was not needed yet (`realFd` opens
   * it), which only a handle for reading may say.
   */
  fd: number
  readonly writable: boolean
  /**
   * The descriptor is open for reading alone, though the handle may write: `HandleTable.writing`
   * opens it anew.
   */
  onlyReads = false
  /** Its place among the node's (handle-list.ts). */
  slot = 0
  /** Who has it asks that reading moves no access time (O_NOATIME). */
  readonly keepsTime: boolean
  /** The file was seen, or made, without a capability, and nobody has set one since. */
  incapable = false
  /**
   * Writes through mappings of it may come late, and nothing tells of them before (`Ops.mappable`).
   */
  mappable = false

  constructor(fh: Fh, node: Node, fd: number, writable: boolean, keepsTime = false) {
    this.fh = fh
    this.node = node
    this.fd = fd
    this.writable = writable
    this.keepsTime = keepsTime
  }
}

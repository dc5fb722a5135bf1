/**
 * Nodes: the union's inodes. A directory has a stack of real directories. Any other node has the
 * real file that provides it, and its names.
 *
 * A node exists while the transport holds lookups of it, while it has known children, and while it
 * is open. `NodeTable.release` is the only place that checks this.
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

/** A file of a layer, identified by its name. */
export interface RealFile extends Identity {
  readonly dir: RealDir
  readonly name: ByteString
}

/**
 * Rarely used fields. The object is created when the first of them is set. There may be millions of
 * nodes, and most are lower files that were only looked up.
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

/** The values for all other nodes. */
const DEFAULTS: Readonly<RareFields> = Object.freeze(new RareFields())

/** The empty stack, shared by all nodes other than directories. */
const NO_DIRS: RealDir[] = []

export class Node implements Identity {
  readonly id: NodeId
  /** S_IFMT bits. */
  readonly type: number
  /** The shown inode number. Copy-up does not change it. */
  ino: Ino
  /** The lookup count of the transport. */
  lookups = 0
  /** Null for the root, and for a node without a name. */
  parent: Node | null = null
  name: ByteString = ''
  unlinked = false

  /** The merged real directories, top first. Empty for other types. */
  dirs: RealDir[]
  /** The known children of a directory. */
  children: Map<ByteString, Node> | null = null

  /** The real object is in the upper layer. */
  upper = false
  /** The lower file that provides, or provided, a node that is not a directory. */
  lowerDir: RealDir | null = null
  lowerName: ByteString = ''
  /**
   * A lower layer also has the directory, or a file under the name: its removal requires a
   * whiteout. Undefined: unknown.
   */
  lowerPositive: boolean | undefined = undefined
  /**
   * The inode number is a lower object's, although the object is in the upper layer
   * (`overlay.origin`).
   */
  hasOrigin = false
  /** Open files. */
  handles: FileHandle[] | null = null
  /**
   * The size in the last reply, at most `UNREAD_MAX`. -1: the node was opened, so the transport may
   * have cached data.
   */
  unread = 0
  /**
   * The version of the real file in the last reply (lower-version.ts). 0: no comparable version.
   */
  version = 0
  /** The identity of the real object, for all types except directories. */
  real: Ino = 0
  birth = 0
  /** Where `resolveMetacopy` starts for a file. Null: done, or not needed. */
  dataParent: Node | null = null

  #rare: RareFields = DEFAULTS

  /** @param dirs the merged real directories, for a directory */
  constructor(id: NodeId, type: number, ino: Ino, dirs: RealDir[] = NO_DIRS) {
    this.id = id
    this.type = type
    this.ino = ino
    this.dirs = dirs
  }

  /** The node's own object of rare fields. */
  #own(): RareFields {
    if (this.#rare === DEFAULTS) this.#rare = new RareFields()
    return this.#rare
  }

  /**
   * The default ACL of a directory (xattr value), null for none, undefined if unknown. Only the
   * union changes it, and resets this field then.
   */
  get defaultAcl(): Buffer | null | undefined {
    return this.#rare.defaultAcl
  }
  set defaultAcl(value) {
    if (value !== this.#rare.defaultAcl) this.#own().defaultAcl = value
  }
  /** Metadata-only copy (`overlay.metacopy`): the data is in another lower file, `data`. */
  get metacopy(): boolean {
    return this.#rare.metacopy
  }
  set metacopy(value) {
    if (value !== this.#rare.metacopy) this.#own().metacopy = value
  }
  /** The file with the data of a metadata-only copy. */
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
  /** All known names of a file with several links. Null for a file with a single link. */
  get links(): NodeLinks | null {
    return this.#rare.links
  }
  set links(value) {
    if (value !== this.#rare.links) this.#own().links = value
  }
  /** The difference between the shown link count and the real link count. */
  get nlinkAdjust(): number {
    return this.#rare.nlinkAdjust
  }
  set nlinkAdjust(value) {
    if (value !== this.#rare.nlinkAdjust) this.#own().nlinkAdjust = value
  }
  /** The name of this inode in `workdir/index`, or null. */
  get indexKey(): string | null {
    return this.#rare.indexKey
  }
  set indexKey(value) {
    if (value !== this.#rare.indexKey) this.#own().indexKey = value
  }
  /** The keys under which the node is registered: for the lower layer and for the upper layer. */
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
  /** Distinguishes the lower inode from others with the same number. */
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
  /** An O_PATH descriptor that keeps the real object of an unlinked node reachable, or -1. */
  get orphanFd(): number {
    return this.#rare.orphanFd
  }
  set orphanFd(value) {
    if (value !== this.#rare.orphanFd) this.#own().orphanFd = value
  }
  /** The kernel has just written back all its dirty pages of this file. */
  get flushed(): boolean {
    return this.#rare.flushed
  }
  set flushed(value) {
    if (value !== this.#rare.flushed) this.#own().flushed = value
  }
  /** The file was seen with a capability. */
  get capable(): boolean {
    return this.#rare.capable
  }
  set capable(value) {
    if (value !== this.#rare.capable) this.#own().capable = value
  }
  /**
   * Another node has taken the names of this node, because another process changed the real file
   * (lower-version.ts).
   */
  get superseded(): boolean {
    return this.#rare.superseded
  }
  set superseded(value) {
    if (value !== this.#rare.superseded) this.#own().superseded = value
  }

  /** A copy-up whose data is still being copied. */
  get job(): CopyUpJob | null {
    return this.#rare.job
  }
  set job(value) {
    if (value !== this.#rare.job) this.#own().job = value
  }

  /** A job that changes the data. Other changes of the file wait for it. */
  get busy(): Job | null {
    return this.#rare.busy
  }
  set busy(value) {
    if (value !== this.#rare.busy) this.#own().busy = value
  }
  /** The object was removed, and freeing its blocks may take long. */
  get bulky(): boolean {
    return this.#rare.bulky
  }
  set bulky(value) {
    if (value !== this.#rare.bulky) this.#own().bulky = value
  }

  /**
   * Names in a directory for which the transport may still use another node
   * (lower-version.ts:dropName).
   */
  get staleNames(): Set<ByteString> | null {
    return this.#rare.staleNames
  }
  set staleNames(value) {
    if (value !== this.#rare.staleNames) this.#own().staleNames = value
  }

  /**
   * A job has just done the slow part of a change, as far as possible (truncate.ts,
   * clear-whiteouts.ts). The operation does the rest at once.
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

  /** The upper layer's directory, or null if the directory is not copied up. */
  get upperDir(): RealDir | null {
    const top = this.dirs[0]
    return top !== undefined && top.layer.index === 0 ? top : null
  }

  /** A layer now has another directory in the place of a merged one. */
  get hasStale(): boolean {
    return this.dirs.length > 1 && this.dirs.some(real => real.stale)
  }

  /**
   * The shown inode number is not that of the upper object. The parent directory must have the
   * impure xattr.
   */
  get hasForeignIno(): boolean {
    return this.isDir ? this.dirs.length > 1 : this.hasOrigin
  }

  /**
   * The directory has more than one layer, or the object is in a lower layer (kernel:
   * ovl_type_merge_or_lower()).
   */
  get mergeOrLower(): boolean {
    return this.dirs.length > 1 || !this.upper
  }
}

/**
 * Called before a change of a file's data or attributes.
 *
 * @throws Pending while a job changes the data: the kernel has locked the real inode
 */
export function throwIfBusy(node: Node): void {
  const { busy } = node
  if (busy === null) return
  // The result of the job does not affect the waiting operation.
  const over: Job = { onDone: callback => busy.onDone(() => callback(0)) }
  throw new Pending(over, false)
}

/** Whether `node` is `directory` or is below it. */
export function isWithin(node: Node, directory: Node): boolean {
  for (let at: Node | null = node; at !== null; at = at.parent) if (at === directory) return true
  return false
}

/** An open file. The table of open files (file/handles.ts) has it under its number. */
export class FileHandle {
  readonly fh: Fh
  readonly node: Node
  /**
   * The descriptor of the real file. It is replaced when the node is copied up. -1: not opened yet
   * (`realFd` opens it), for handles for reading only.
   */
  fd: number
  readonly writable: boolean
  /**
   * The descriptor is open for reading only, although the handle may write. `HandleTable.writing`
   * reopens it.
   */
  onlyReads = false
  /** Its index in the node's list (handle-list.ts). */
  slot = 0
  /** The caller opened the file with O_NOATIME. */
  readonly keepsTime: boolean
  /** The file was seen or created without a capability, and no capability has been set since. */
  incapable = false
  /** Writes through mappings may reach the server late and without notice (`Ops.mappable`). */
  mappable = false

  constructor(fh: Fh, node: Node, fd: number, writable: boolean, keepsTime = false) {
    this.fh = fh
    this.node = node
    this.fd = fd
    this.writable = writable
    this.keepsTime = keepsTime
  }
}

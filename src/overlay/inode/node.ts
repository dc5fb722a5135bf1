/**
 * Nodes: the union's inodes. A directory has the stack of real directories under it; anything else
 * has the one real file that provides it, and the names it goes by.
 *
 * A node lives while the transport counts lookups of it, while it has known children, and while it
 * is open; what keeps it is checked in one place, `NodeTable.release`.
 */

import { S_IFDIR, S_IFMT, S_IFREG } from '../../sys/constants.js'
import { close } from '../../sys/io.js'
import type { Ino } from '../../sys/stat.js'
import type { FileHandle } from './file-handle.js'
import type { Identity, InodeKey } from '../layer/real-identity.js'
import { IdTable } from './node-table.js'
import type { RealDir } from '../layer/layer.js'
import { heap } from './heap.js'
import { Links } from './links.js'
import { Pending, ROOT_ID, type ByteString, type Job, type NodeId } from '../ops.js'

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
  links: Links | null = null
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
  get links(): Links | null {
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

export class NodeTable {
  readonly root: Node
  readonly #byId = new IdTable<Node>()
  readonly #lowerInodes: Map<InodeKey, Node>[] = []
  readonly #upperInodes = new Map<InodeKey, Node>()
  readonly #numberGone: ((directory: Node) => void) | null
  readonly #applyRmdir: (dir: RealDir) => void
  readonly #closeLater: (fd: number) => void
  #nextId = ROOT_ID + 1
  /** There is no room for further nodes. */
  full = false

  /**
   * @param numberGone where a copy's number cannot be found again by its origin: called for each
   *   directory with a name that gets another one at the next lookup
   * @param applyRmdir called for each real directory under a directory that nothing needs any more
   */
  constructor(
    rootIno: Ino,
    dirs: RealDir[],
    numberGone: ((directory: Node) => void) | null = null,
    applyRmdir: (dir: RealDir) => void = () => {},
    closeLater: (fd: number) => void = close,
  ) {
    this.#closeLater = closeLater
    this.#numberGone = numberGone
    this.#applyRmdir = applyRmdir
    this.root = new Node(ROOT_ID, S_IFDIR, rootIno, dirs)
    this.root.lookups = 1
    this.root.upper = this.root.upperDir !== null
    this.#byId.add(ROOT_ID, this.root)
  }

  get size(): number {
    return this.#byId.size
  }

  get(id: NodeId): Node | undefined {
    return this.#byId.get(id)
  }

  get nextId(): NodeId {
    return this.#nextId
  }

  /** Drops nodes with this number and above that nothing needs. */
  releaseFrom(id: NodeId): void {
    for (let at = this.#nextId - 1; at >= id; at--) {
      const node = this.#byId.get(at)
      if (node !== undefined) this.release(node)
    }
  }

  /** A new node, known by its id; the caller gives it names. */
  create(mode: number, ino: Ino, dirs?: RealDir[]): Node {
    const node = new Node(this.#nextId++, mode & S_IFMT, ino, dirs)
    this.#byId.add(node.id, node)
    heap.allocated(1)
    return node
  }

  /** Whether a name can be looked up: it is known, or there is room for another node. */
  hasRoom(directory: Node, name: ByteString): boolean {
    return !this.full || directory.children?.has(name) === true
  }

  /**
   * Nodes that nothing keeps but the transport's cache, the oldest first. A directory is one where
   * no child is known.
   */
  *cached(): Generator<NodeId> {
    for (const node of this.#byId.values()) {
      const { id, lookups, children, handles, job, busy } = node
      if (id === ROOT_ID || lookups === 0 || (children !== null && children.size > 0)) continue
      if (handles === null && job === null && busy === null) yield id
    }
  }

  /** The node of a lower layer's inode with several links, if one is known. */
  byLower(layer: number, key: InodeKey): Node | undefined {
    return this.#lowerInodes[layer]?.get(key)
  }

  byUpper(key: InodeKey): Node | undefined {
    return this.#upperInodes.get(key)
  }

  /** @param birth of the lower inode (identity.ts:birthHash) */
  registerLower(node: Node, layer: number, key: InodeKey, birth: number): void {
    node.lowerKey = key
    node.lowerBirth = birth
    node.lowerLayer = layer
    let map = this.#lowerInodes[layer]
    if (map === undefined) this.#lowerInodes[layer] = map = new Map()
    map.set(key, node)
    makeLinked(node)
  }

  registerUpper(node: Node, key: InodeKey): void {
    if (node.upperKey === key) return
    if (node.upperKey !== null) this.#upperInodes.delete(node.upperKey)
    node.upperKey = key
    this.#upperInodes.set(key, node)
    makeLinked(node)
  }

  /** Names of the lower inode no longer lead to the node. */
  unregisterLower(node: Node): void {
    const { lowerKey } = node
    const lower = this.#lowerInodes[node.lowerLayer]
    if (lowerKey !== null && lower?.get(lowerKey) === node) lower.delete(lowerKey)
  }

  /** The node is no longer found by an inode number. */
  unregister(node: Node): void {
    this.unregisterLower(node)
    const { upperKey } = node
    if (upperKey !== null && this.#upperInodes.get(upperKey) === node)
      this.#upperInodes.delete(upperKey)
  }

  /** Gives the node a (further) name. */
  addName(node: Node, parent: Node, name: ByteString, inUpper: boolean): void {
    parent.children ??= new Map()
    parent.children.set(name, node)
    if (node.links !== null) {
      node.links.add(parent, name, inUpper)
      if (node.parent !== null) return
    }
    node.parent = parent
    node.name = name
    node.unlinked = false
  }

  /** Takes a name from the node, which may have others. */
  removeName(node: Node, parent: Node, name: ByteString): void {
    if (parent.children?.get(name) === node) parent.children.delete(name)
    if (node.links !== null) {
      node.links.remove(parent, name)
      const { first } = node.links
      node.parent = first?.parent ?? null
      node.name = first?.name ?? ''
      return
    }
    if (node.parent === parent && node.name === name) {
      node.parent = null
      node.name = ''
    }
  }

  forget(id: NodeId, count: number): void {
    const node = this.#byId.get(id)
    if (node === undefined) return
    node.lookups = Math.max(0, node.lookups - count)
    this.release(node)
  }

  /** Its last descriptor: with it a removed file gives its space back. */
  #letGo(node: Node): void {
    const fd = node.orphanFd
    node.orphanFd = -1
    if (node.bulky) this.#closeLater(fd)
    else close(fd)
  }

  /** Drops the node if nothing needs it any more, then the directories that only it kept. */
  release(node: Node): void {
    let at: Node | null = node
    while (at !== null && at.id !== ROOT_ID) {
      if (at.lookups > 0 || at.job !== null || at.busy !== null) return
      if (at.children !== null && at.children.size > 0) return
      if (at.handles !== null && at.handles.length > 0) return
      if (!this.#byId.delete(at.id)) return
      if (this.#numberGone !== null && at.hasOrigin) eachDirectory(at, this.#numberGone)
      const parent: Node | null = at.parent
      if (at.links !== null) {
        const others = at.links
        at.links = new Links()
        for (const link of others) {
          if (link.parent.children?.get(link.name) === at) link.parent.children.delete(link.name)
          if (link.parent !== parent) this.release(link.parent)
        }
      } else if (parent !== null && parent.children?.get(at.name) === at) {
        parent.children.delete(at.name)
      }
      this.unregister(at)
      if (at.orphanFd >= 0) this.#letGo(at)
      for (const dir of at.dirs) this.#applyRmdir(dir)
      at = parent
    }
  }

  /** Closes the anchors of all nodes, at the end of the union. */
  closeOrphanFds(): void {
    this.#byId.forEach(node => {
      if (node.orphanFd >= 0) close(node.orphanFd)
    })
  }
}

/** Directories that have a name of the node. */
function eachDirectory(node: Node, call: (directory: Node) => void): void {
  if (node.parent !== null) call(node.parent)
  for (const { parent } of node.links ?? []) if (parent !== node.parent) call(parent)
}

/** From here on the node's names are kept as a list. */
function makeLinked(node: Node): void {
  if (node.links !== null) return
  node.links = new Links()
  if (node.parent !== null) node.links.add(node.parent, node.name, node.upper)
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

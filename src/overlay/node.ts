/**
 * Nodes: the union's inodes. A folder has the stack of real folders under it; anything else has the
 * one real file that provides it, and the names it goes by.
 *
 * A node lives while the transport counts lookups of it, while it has known children, and while it is
 * open; what keeps it is checked in one place, `NodeTable.release`.
 */

import { S_IFDIR, S_IFMT, S_IFREG } from '../sys/constants.js'
import { close } from '../sys/io.js'
import type { Ino } from '../sys/stat.js'
import type { FileHandle } from './handles.js'
import { IdTable } from './id-table.js'
import type { RealDir } from './layer.js'
import { ROOT_ID, type ByteString, type NodeId } from './ops.js'
import type { CopyUpJob } from './copyup.js'

/** One name of a file that has, or had, several. */
export interface Link {
  parent: Node
  name: ByteString
  /** The upper folder has this name too; false where a lower layer alone provides it. */
  inUpper: boolean
}

/** Virtual inode flags (kernel: `overlay.protattr`). */
export const Protect = { IMMUTABLE: 1, APPEND: 2 } as const

/**
 * What few nodes have. It is made when the first of it is set: there may be millions of nodes, and most
 * are files of a lower layer that were looked at and no more.
 */
class Rare {
  defaultAcl: Buffer | null | undefined = undefined
  metacopy = false
  dataDir: RealDir | null = null
  dataName: ByteString = ''
  protect = 0
  links: Link[] | null = null
  nlinkAdjust = 0
  indexKey: string | null = null
  lowerIno: Ino | null = null
  lowerLayer = -1
  upperIno: Ino | null = null
  anchor = -1
  flushed = false
  capable = false
  job: CopyUpJob | null = null
}

/** What all others have. */
const ORDINARY: Readonly<Rare> = Object.freeze(new Rare())

/** The stack of all that are no folders. */
const NO_DIRS: RealDir[] = []

export class Node {
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

  /** Folders: what it is merged from, top first. Empty for other types. */
  dirs: RealDir[]
  /** Folders: children that are known. */
  children: Map<ByteString, Node> | null = null

  /** The real object is in the upper layer. */
  upper = false
  /** Non-folders that a lower layer provides, or provided: where. */
  lowerDir: RealDir | null = null
  lowerName: ByteString = ''
  /** A folder, or a file by a name, that a lower layer has too: removing it takes a whiteout. Undefined: not known. */
  lowerPositive: boolean | undefined = undefined
  /** The inode number is a lower object's, although the upper layer has it (`overlay.origin`). */
  hasOrigin = false
  /** Open files. */
  handles: FileHandle[] | null = null
  /** Its size as it was told last, at most 2^30 - 1; -1: it was opened, so the transport may have data of it. */
  unread = 0
  /** Files: where `settleData` looks from; null: it has done so, or need not. */
  dataParent: Node | null = null

  #rare: Rare = ORDINARY

  /** @param dirs for folders */
  constructor(id: NodeId, type: number, ino: Ino, dirs: RealDir[] = NO_DIRS) {
    this.id = id
    this.type = type
    this.ino = ino
    this.dirs = dirs
  }

  /** Its own. */
  #own(): Rare {
    if (this.#rare === ORDINARY) this.#rare = new Rare()
    return this.#rare
  }

  /**
   * Folders: the default ACL (xattr bytes), null for none, undefined while unknown. Only the union
   * changes it, and drops this when it does.
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
  /** Where that is. */
  get dataDir(): RealDir | null {
    return this.#rare.dataDir
  }
  set dataDir(value) {
    if (value !== this.#rare.dataDir) this.#own().dataDir = value
  }
  get dataName(): ByteString {
    return this.#rare.dataName
  }
  set dataName(value) {
    if (value !== this.#rare.dataName) this.#own().dataName = value
  }
  /** Virtual immutable and append-only bits. */
  get protect(): number {
    return this.#rare.protect
  }
  set protect(value) {
    if (value !== this.#rare.protect) this.#own().protect = value
  }
  /** Files with several links: all the names that are known. Null for files with one. */
  get links(): Link[] | null {
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
  get lowerIno(): Ino | null {
    return this.#rare.lowerIno
  }
  set lowerIno(value) {
    if (value !== this.#rare.lowerIno) this.#own().lowerIno = value
  }
  get lowerLayer(): number {
    return this.#rare.lowerLayer
  }
  set lowerLayer(value) {
    if (value !== this.#rare.lowerLayer) this.#own().lowerLayer = value
  }
  get upperIno(): Ino | null {
    return this.#rare.upperIno
  }
  set upperIno(value) {
    if (value !== this.#rare.upperIno) this.#own().upperIno = value
  }
  /** Keeps the real object of an unlinked node reachable (O_PATH), or -1. */
  get anchor(): number {
    return this.#rare.anchor
  }
  set anchor(value) {
    if (value !== this.#rare.anchor) this.#own().anchor = value
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

  /** A copy-up whose data is on its way. */
  get job(): CopyUpJob | null {
    return this.#rare.job
  }
  set job(value) {
    if (value !== this.#rare.job) this.#own().job = value
  }

  get isDir(): boolean {
    return this.type === S_IFDIR
  }

  get isReg(): boolean {
    return this.type === S_IFREG
  }

  /** The upper layer's folder, or null while the folder has not been copied up. */
  get upperDir(): RealDir | null {
    const top = this.dirs[0]
    return top !== undefined && top.layer.index === 0 ? top : null
  }

  /** Its number is not its upper object's own: the folder that holds it must be marked impure. */
  get foreign(): boolean {
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
  readonly #lowerInodes: Map<Ino, Node>[] = []
  readonly #upperInodes = new Map<Ino, Node>()
  readonly #numberGone: ((folder: Node) => void) | null
  readonly #folderGone: (dir: RealDir) => void
  #nextId = ROOT_ID + 1

  /**
   * @param numberGone where a copy's number cannot be found again by its origin: called for each folder
   * with a name that gets another one at the next lookup
   * @param folderGone called for each real folder under a folder that nothing needs any more
   */
  constructor(
    rootIno: Ino,
    dirs: RealDir[],
    numberGone: ((folder: Node) => void) | null = null,
    folderGone: (dir: RealDir) => void = () => {},
  ) {
    this.#numberGone = numberGone
    this.#folderGone = folderGone
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

  /** A new node, known by its id; the caller gives it names. */
  create(mode: number, ino: Ino, dirs?: RealDir[]): Node {
    const node = new Node(this.#nextId++, mode & S_IFMT, ino, dirs)
    this.#byId.add(node.id, node)
    return node
  }

  /** The node of a lower layer's inode with several links, if one is known. */
  byLower(layer: number, ino: Ino): Node | undefined {
    return this.#lowerInodes[layer]?.get(ino)
  }

  byUpper(ino: Ino): Node | undefined {
    return this.#upperInodes.get(ino)
  }

  registerLower(node: Node, layer: number, ino: Ino): void {
    node.lowerIno = ino
    node.lowerLayer = layer
    let map = this.#lowerInodes[layer]
    if (map === undefined) this.#lowerInodes[layer] = map = new Map()
    map.set(ino, node)
    makeLinked(node)
  }

  registerUpper(node: Node, ino: Ino): void {
    if (node.upperIno === ino) return
    if (node.upperIno !== null) this.#upperInodes.delete(node.upperIno)
    node.upperIno = ino
    this.#upperInodes.set(ino, node)
    makeLinked(node)
  }

  /** Gives the node a (further) name. */
  addName(node: Node, parent: Node, name: ByteString, inUpper: boolean): void {
    parent.children ??= new Map()
    parent.children.set(name, node)
    if (node.links !== null) {
      if (!node.links.some(link => link.parent === parent && link.name === name))
        node.links.push({ parent, name, inUpper })
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
      const at = node.links.findIndex(link => link.parent === parent && link.name === name)
      if (at >= 0) node.links.splice(at, 1)
      const first = node.links[0]
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

  /** Drops the node if nothing needs it any more, then the folders that only it kept. */
  release(node: Node): void {
    let at: Node | null = node
    while (at !== null && at.id !== ROOT_ID) {
      if (at.lookups > 0 || at.job !== null) return
      if (at.children !== null && at.children.size > 0) return
      if (at.handles !== null && at.handles.length > 0) return
      if (!this.#byId.delete(at.id)) return
      if (this.#numberGone !== null && at.hasOrigin) eachFolder(at, this.#numberGone)
      const parent: Node | null = at.parent
      if (at.links !== null) {
        const others = at.links
        at.links = []
        for (const link of others) {
          if (link.parent.children?.get(link.name) === at) link.parent.children.delete(link.name)
          if (link.parent !== parent) this.release(link.parent)
        }
      } else if (parent !== null && parent.children?.get(at.name) === at) {
        parent.children.delete(at.name)
      }
      if (at.lowerIno !== null) {
        const map = this.#lowerInodes[at.lowerLayer]
        if (map?.get(at.lowerIno) === at) map.delete(at.lowerIno)
      }
      if (at.upperIno !== null && this.#upperInodes.get(at.upperIno) === at)
        this.#upperInodes.delete(at.upperIno)
      if (at.anchor >= 0) close(at.anchor)
      at.anchor = -1
      for (const dir of at.dirs) this.#folderGone(dir)
      at = parent
    }
  }

  *all(): IterableIterator<Node> {
    yield* this.#byId.values()
  }
}

/** Folders that have a name of the node. */
function eachFolder(node: Node, call: (folder: Node) => void): void {
  if (node.parent !== null) call(node.parent)
  for (const { parent } of node.links ?? []) if (parent !== node.parent) call(parent)
}

/** From here on the node's names are kept as a list. */
function makeLinked(node: Node): void {
  if (node.links !== null) return
  node.links =
    node.parent === null ? [] : [{ parent: node.parent, name: node.name, inUpper: node.upper }]
}

/** Whether `node` is `folder` or lies below it. */
export function isWithin(node: Node, folder: Node): boolean {
  for (let at: Node | null = node; at !== null; at = at.parent) if (at === folder) return true
  return false
}

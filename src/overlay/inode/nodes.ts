/** The table of all nodes of a union: by nodeid, and by the real inode. */

import { S_IFDIR, S_IFMT } from '../../sys/constants.js'
import { close } from '../../sys/io.js'
import type { Ino } from '../../sys/stat.js'
import type { InodeKey } from '../layer/real-identity.js'
import { IdTable } from './node-table.js'
import type { RealDir } from '../layer/layer.js'
import { heap } from './heap.js'
import { Links } from './links.js'
import { ROOT_ID, type ByteString, type NodeId } from '../ops.js'
import { Node } from './node.js'

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

export class NodeTable {
  readonly root: Node
  readonly #byId = new IdTable<Node>()
  readonly #lowerInodes: Map<InodeKey, Node>[] = []
  readonly #upperInodes = new Map<InodeKey, Node>()
  readonly #numberGone: ((directory: Node) => void) | null
  readonly #directoryGone: (dir: RealDir) => void
  readonly #closeLater: (fd: number) => void
  #nextId = ROOT_ID + 1
  /** There is no room for further nodes. */
  full = false

  /**
   * @param numberGone where a copy's number cannot be found again by its origin: called for each
   *   directory with a name that gets another one at the next lookup
   * @param directoryGone called for each real directory under a directory that nothing needs any more
   */
  constructor(
    rootIno: Ino,
    dirs: RealDir[],
    numberGone: ((directory: Node) => void) | null = null,
    directoryGone: (dir: RealDir) => void = () => {},
    closeLater: (fd: number) => void = close,
  ) {
    this.#closeLater = closeLater
    this.#numberGone = numberGone
    this.#directoryGone = directoryGone
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
      for (const dir of at.dirs) this.#directoryGone(dir)
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

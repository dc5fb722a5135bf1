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

/** Calls `call` for each directory that has a name of the node. */
function eachDirectory(node: Node, call: (directory: Node) => void): void {
  if (node.parent !== null) call(node.parent)
  for (const { parent } of node.links ?? []) if (parent !== node.parent) call(parent)
}

/** From now on the names of the node are in `links`. */
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
  readonly #onInoLost: ((directory: Node) => void) | null
  readonly #onDirReleased: (dir: RealDir) => void
  readonly #closeLater: (fd: number) => void
  #nextId = ROOT_ID + 1
  /** There is no room for new nodes. */
  full = false

  /**
   * @param onInoLost called if the inode number of a copied-up file can't be found again by its
   *   origin: for each directory with a name that gets another number at the next lookup. Null if
   *   numbers are never lost
   * @param onDirReleased called for each real directory of a released directory
   * @param closeLater closes the last descriptor of a large removed file
   */
  constructor(
    rootIno: Ino,
    dirs: RealDir[],
    onInoLost: ((directory: Node) => void) | null = null,
    onDirReleased: (dir: RealDir) => void = () => {},
    closeLater: (fd: number) => void = close,
  ) {
    this.#closeLater = closeLater
    this.#onInoLost = onInoLost
    this.#onDirReleased = onDirReleased
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

  /** Releases unneeded nodes with this id and above. */
  releaseFrom(id: NodeId): void {
    for (let at = this.#nextId - 1; at >= id; at--) {
      const node = this.#byId.get(at)
      if (node !== undefined) this.release(node)
    }
  }

  /** Creates a node with an id. The caller adds its names. */
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
   * Nodes that only the transport's cache keeps alive, oldest first. A directory is such a node if
   * it has no known children.
   */
  *cached(): Generator<NodeId> {
    for (const node of this.#byId.values()) {
      const { id, lookups, children, handles, job, busy } = node
      if (id === ROOT_ID || lookups === 0 || (children !== null && children.size > 0)) continue
      if (handles === null && job === null && busy === null) yield id
    }
  }

  /** The known node of a lower layer's inode with several links. */
  byLower(layer: number, key: InodeKey): Node | undefined {
    return this.#lowerInodes[layer]?.get(key)
  }

  byUpper(key: InodeKey): Node | undefined {
    return this.#upperInodes.get(key)
  }

  /** @param birth the `birthHash` of the lower inode */
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

  /** Adds a name to the node. */
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

  /** Removes a name from the node, which may have others. */
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

  /** Closes the last descriptor of a removed object. This frees the blocks of a file. */
  #closeOrphanFd(node: Node): void {
    const fd = node.orphanFd
    node.orphanFd = -1
    if (node.bulky) this.#closeLater(fd)
    else close(fd)
  }

  /**
   * Releases the node if nothing needs it, and then each parent directory that only it kept alive.
   */
  release(node: Node): void {
    let at: Node | null = node
    while (at !== null && at.id !== ROOT_ID) {
      if (at.lookups > 0 || at.job !== null || at.busy !== null) return
      if (at.children !== null && at.children.size > 0) return
      if (at.handles !== null && at.handles.length > 0) return
      if (!this.#byId.delete(at.id)) return
      if (this.#onInoLost !== null && at.hasOrigin) eachDirectory(at, this.#onInoLost)
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
      if (at.orphanFd >= 0) this.#closeOrphanFd(at)
      for (const dir of at.dirs) this.#onDirReleased(dir)
      at = parent
    }
  }

  /** Closes the orphan fds of all nodes, at the end of the union. */
  closeOrphanFds(): void {
    this.#byId.forEach(node => {
      if (node.orphanFd >= 0) close(node.orphanFd)
    })
  }
}

/**
 * Maps paths to nodes. libfuse passes a path with every request. The union identifies inodes by
 * nodeid, and keeps an inode that was looked up until it is forgotten. In place of the kernel's
 * dentries, this module keeps a tree of the names that were used last; each holds one lookup count
 * of its node. A directory stays as long as the tree has names below it.
 */

import {
  Entry,
  ROOT_ID,
  type ByteString,
  type NodeId,
  type Ops,
  type Result,
} from '../overlay/ops.js'
import { E } from '../sys/errno.js'
import { toBytes } from './names.js'

/** Maximum number of names. */
const MAX_NAMES = 16_384

/** A name of the union. */
export class Dentry {
  readonly id: NodeId
  parent: Dentry | null
  name: ByteString
  children: Map<ByteString, Dentry> | null = null
  /** A removed file under its hidden name (hidden.ts). */
  hidden = false

  constructor(id: NodeId, parent: Dentry | null, name: ByteString) {
    this.id = id
    this.parent = parent
    this.name = name
  }
}

/** The directory and the name for a creation, a removal or a rename. */
export interface Place {
  readonly directory: Dentry
  readonly name: ByteString
}

export class Paths {
  readonly #ops: Ops
  readonly #most: number
  readonly #root = new Dentry(ROOT_ID, null, '')
  /** All names except the root and the hidden ones, in order of last use, oldest first. */
  readonly #recent = new Set<Dentry>()
  /**
   * Lookup counts to give back when no operation is running, because an operation may use the node.
   */
  readonly #owed: NodeId[] = []
  readonly #entry = new Entry()

  constructor(ops: Ops, most = MAX_NAMES) {
    this.#ops = ops
    this.#most = most
  }

  get size(): number {
    return this.#recent.size
  }

  /** The dentry of a path, or -errno: -ENOENT, -ENOTDIR, or -EILSEQ if its bytes are not known. */
  find(path: string): Dentry | Result {
    const bytes = toBytes(path)
    return bytes === undefined ? -E.EILSEQ : this.#walk(bytes)
  }

  /** Splits a path into the directory and its last name. */
  place(path: string): Place | Result {
    const bytes = toBytes(path)
    if (bytes === undefined) return -E.EILSEQ
    const slash = bytes.lastIndexOf('/')
    const directory = this.#walk(bytes.slice(0, slash))
    return typeof directory === 'number' ? directory : { directory, name: bytes.slice(slash + 1) }
  }

  #walk(path: ByteString): Dentry | Result {
    let at = this.#root
    for (const name of path.split('/')) {
      if (name === '') continue
      const next = at.children?.get(name) ?? this.#lookUp(at, name)
      if (typeof next === 'number') return next
      at = next
    }
    this.#touch(at)
    return at
  }

  #lookUp(directory: Dentry, name: ByteString): Dentry | Result {
    const r = this.#ops.lookup(directory.id, name, this.#entry)
    if (r < 0) return r === -E.ESTALE ? -E.ENOTDIR : r
    if (this.#entry.nodeId === 0) return -E.ENOENT
    return this.add({ directory, name }, this.#entry.nodeId)
  }

  /**
   * From the leaf to the root, so that a directory's last use is never earlier than that of its
   * entries.
   */
  #touch(leaf: Dentry): void {
    for (let at: Dentry | null = leaf; at !== null && at.parent !== null; at = at.parent) {
      if (at.hidden) continue
      this.#recent.delete(at)
      this.#recent.add(at)
    }
  }

  /** Adds a name that was looked up or created. Takes over the lookup count. */
  add({ directory, name }: Place, id: NodeId): Dentry {
    const known = directory.children?.get(name)
    if (known?.id === id) {
      this.#owed.push(id)
      return known
    }
    if (known !== undefined) this.remove(known)
    const dentry = new Dentry(id, directory, name)
    this.#attach(dentry, directory, name)
    this.#recent.add(dentry)
    return dentry
  }

  #attach(dentry: Dentry, directory: Dentry, name: ByteString): void {
    dentry.parent = directory
    dentry.name = name
    directory.children ??= new Map()
    directory.children.set(name, dentry)
  }

  #detach(dentry: Dentry): void {
    const siblings = dentry.parent?.children
    siblings?.delete(dentry.name)
    if (siblings?.size === 0 && dentry.parent !== null) dentry.parent.children = null
  }

  /** The dentry of a name, if the tree has one, without a lookup. */
  known({ directory, name }: Place): Dentry | undefined {
    return directory.children?.get(name)
  }

  /** The name was removed: drops its dentry and all below it. */
  remove(dentry: Dentry): void {
    this.#detach(dentry)
    const gone = [dentry]
    for (const each of gone) {
      if (each.children !== null) gone.push(...each.children.values())
      this.#recent.delete(each)
      this.#owed.push(each.id)
    }
  }

  /** The name was renamed: moves its dentry, and drops the dentry of the replaced name. */
  move(dentry: Dentry, to: Place): void {
    const there = this.known(to)
    if (there === dentry) return
    if (there !== undefined) this.remove(there)
    this.#detach(dentry)
    this.#attach(dentry, to.directory, to.name)
  }

  /** Like `move`, to a name that the union does not have. The dentry stays until `remove`. */
  hide(dentry: Dentry, name: ByteString): Dentry {
    const directory = dentry.parent ?? this.#root
    this.move(dentry, { directory, name })
    dentry.hidden = true
    this.#recent.delete(dentry)
    return dentry
  }

  /**
   * Called when no operation is running: drops names above the limit and gives lookup counts back.
   */
  trim(): void {
    if (this.#recent.size > this.#most) this.#shrink()
    for (const id of this.#owed) this.#ops.forget(id, 1)
    this.#owed.length = 0
  }

  #shrink(): void {
    for (const dentry of this.#recent) {
      if (this.#recent.size <= this.#most) return
      // A directory with entries is older than its entries only if these are hidden; it stays.
      if (dentry.children === null) this.remove(dentry)
    }
  }
}

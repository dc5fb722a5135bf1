/**
 * The names of a file that has, or had, several hard links. No operation on a name gets slower with
 * the number of names: the names form a linked list, with those of the upper layer first, and a map
 * finds a name if there are more than a few.
 */

import type { ByteString, NodeId } from '../ops.js'

/** The directory of a name. Its id is never used again. */
interface Parent {
  readonly id: NodeId
}

/** A name of the file. */
export interface Link<P extends Parent> {
  readonly parent: P
  readonly name: ByteString
  /**
   * The upper directory has this name. False if only a lower layer has it. Only `Links` changes it.
   */
  inUpper: boolean
  before: Link<P> | null
  after: Link<P> | null
}

/** Up to this number of names are compared one by one. */
const FEW = 8

/** A directory's id is never reused and contains no slash. */
const keyOf = (parent: Parent, name: ByteString): string => `${parent.id}/${name}`

export class Links<P extends Parent> implements Iterable<Link<P>> {
  size = 0
  #first: Link<P> | null = null
  #last: Link<P> | null = null
  /** Null while there are few names. */
  #byName: Map<string, Link<P>> | null = null

  /** The preferred name of the file, or null if it has no name. */
  get first(): Link<P> | null {
    return this.#first
  }

  get(parent: P, name: ByteString): Link<P> | undefined {
    if (this.#byName !== null) return this.#byName.get(keyOf(parent, name))
    for (let link = this.#first; link !== null; link = link.after)
      if (link.parent === parent && link.name === name) return link
    return undefined
  }

  /** Adds a name. A known name stays unchanged. */
  add(parent: P, name: ByteString, inUpper: boolean): void {
    if (this.get(parent, name) !== undefined) return
    const link: Link<P> = { parent, name, inUpper, before: null, after: null }
    this.size++
    if (this.#byName !== null) this.#byName.set(keyOf(parent, name), link)
    if (inUpper) this.#putFirst(link)
    else this.#putLast(link)
    if (this.size > FEW && this.#byName === null) {
      this.#byName = new Map()
      for (const each of this) this.#byName.set(keyOf(each.parent, each.name), each)
    }
  }

  remove(parent: P, name: ByteString): void {
    const link = this.get(parent, name)
    if (link === undefined) return
    this.size--
    this.#byName?.delete(keyOf(parent, name))
    this.#takeOut(link)
  }

  /** Notes that the upper directory has the name. */
  setInUpper(link: Link<P>): void {
    if (link.inUpper) return
    link.inUpper = true
    this.prefer(link)
  }

  /** Makes this the preferred name, if it is in the upper layer or no name is. */
  prefer(link: Link<P>): void {
    if (link === this.#first || (!link.inUpper && this.#first?.inUpper === true)) return
    this.#takeOut(link)
    this.#putFirst(link)
  }

  /** Whether the upper layer has a name of the file besides this one. */
  hasOtherInUpper(parent: P, name: ByteString): boolean {
    const first = this.#first
    if (first === null || !first.inUpper) return false
    if (first.parent !== parent || first.name !== name) return true
    return first.after?.inUpper === true
  }

  /** Iterates over all names, those in the upper layer first. */
  *[Symbol.iterator](): IterableIterator<Link<P>> {
    for (let link = this.#first; link !== null; link = link.after) yield link
  }

  #putFirst(link: Link<P>): void {
    link.before = null
    link.after = this.#first
    if (this.#first === null) this.#last = link
    else this.#first.before = link
    this.#first = link
  }

  #putLast(link: Link<P>): void {
    link.after = null
    link.before = this.#last
    if (this.#last === null) this.#first = link
    else this.#last.after = link
    this.#last = link
  }

  #takeOut(link: Link<P>): void {
    if (link.before === null) this.#first = link.after
    else link.before.after = link.after
    if (link.after === null) this.#last = link.before
    else link.after.before = link.before
  }
}

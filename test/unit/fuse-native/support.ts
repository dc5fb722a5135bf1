/** A union of names only. It counts the lookups that a transport holds. */

import type { Entry, NodeId, Ops, Result } from '../../../src/overlay/ops.js'
import { ROOT_ID } from '../../../src/overlay/ops.js'
import { E } from '../../../src/sys/errno.js'

export class NamesOps {
  /** Paths and their nodes. A path with entries below it is a directory. */
  readonly #nodes = new Map<string, NodeId>()
  readonly #paths = new Map<NodeId, string>([[ROOT_ID, '']])
  readonly held = new Map<NodeId, number>()
  readonly calls: string[] = []
  /** Replaces the next unlink or rename. */
  next: (() => Result) | undefined

  constructor(...paths: string[]) {
    for (const path of paths) this.put(path)
  }

  /** No layer is slow. */
  readonly slow = null

  /** The part of `Ops` that the tests need. */
  get ops(): Ops {
    return this as unknown as Ops
  }

  put(path: string, id = this.#paths.size + 1): void {
    this.#nodes.set(path, id)
    this.#paths.set(id, path)
  }

  lookup(parent: NodeId, name: string, out: Entry): Result {
    this.calls.push(`lookup ${parent} ${name}`)
    const id = this.#nodes.get(`${this.#paths.get(parent)}/${name}`)
    out.nodeId = id ?? 0
    if (id !== undefined) this.held.set(id, (this.held.get(id) ?? 0) + 1)
    return 0
  }

  forget(id: NodeId, count: number): void {
    const left = (this.held.get(id) ?? 0) - count
    if (left < 0) throw new Error(`node ${id} was not held`)
    if (left === 0) this.held.delete(id)
    else this.held.set(id, left)
  }

  #act(call: string, act: () => Result): Result {
    this.calls.push(call)
    const { next } = this
    this.next = undefined
    return next === undefined ? act() : next()
  }

  unlink(parent: NodeId, name: string): Result {
    const path = `${this.#paths.get(parent)}/${name}`
    return this.#act(`unlink ${path}`, () => (this.#nodes.delete(path) ? 0 : -E.ENOENT))
  }

  rename(parent: NodeId, name: string, newParent: NodeId, newName: string): Result {
    const from = `${this.#paths.get(parent)}/${name}`
    const to = `${this.#paths.get(newParent)}/${newName}`
    return this.#act(`rename ${from} ${to}`, () => {
      const id = this.#nodes.get(from)
      if (id === undefined) return -E.ENOENT
      if (this.#nodes.get(to) === id) return 0
      this.#nodes.delete(from)
      this.put(to, id)
      return 0
    })
  }
}

/**
 * A table for ids in ascending order that are never reused, as the ids of nodes. It consists of
 * pages of slots, because a hash map grows more slowly and takes more memory
 * (docs/measurements.md). A page is freed with its last entry.
 */

const PAGE = 512

interface Page<T> {
  readonly slots: (T | undefined)[]
  used: number
}

export class IdTable<T> {
  readonly #pages = new Map<number, Page<T>>()
  /** The page that was used last. */
  #at = -1
  #page: Page<T> | undefined
  #size = 0

  get size(): number {
    return this.#size
  }

  get(id: number): T | undefined {
    const slot = id % PAGE
    return this.#find((id - slot) / PAGE)?.slots[slot]
  }

  /** @param id a free integer, at least 0 */
  add(id: number, value: T): void {
    const slot = id % PAGE
    const at = (id - slot) / PAGE
    let page = this.#find(at)
    if (page === undefined) {
      page = { slots: Array.from({ length: PAGE }), used: 0 }
      this.#pages.set(at, page)
      this.#page = page
    }
    page.slots[slot] = value
    page.used++
    this.#size++
  }

  /** Returns false if the id was free. */
  delete(id: number): boolean {
    const slot = id % PAGE
    const at = (id - slot) / PAGE
    const page = this.#find(at)
    if (page?.slots[slot] === undefined) return false
    page.slots[slot] = undefined
    this.#size--
    if (--page.used === 0) {
      this.#pages.delete(at)
      this.#page = undefined
    }
    return true
  }

  forEach(call: (value: T) => void): void {
    this.#pages.forEach(({ slots }) => {
      for (let i = 0; i < PAGE; i++) {
        const value = slots[i]
        if (value !== undefined) call(value)
      }
    })
  }

  /** The table may change during the iteration. Deleted entries are skipped. */
  *values(): Generator<T> {
    for (const { slots } of this.#pages.values()) {
      for (let i = 0; i < PAGE; i++) {
        const value = slots[i]
        if (value !== undefined) yield value
      }
    }
  }

  #find(at: number): Page<T> | undefined {
    if (at !== this.#at) {
      this.#at = at
      this.#page = this.#pages.get(at)
    }
    return this.#page
  }
}

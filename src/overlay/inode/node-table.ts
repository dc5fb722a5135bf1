/**
 * A table for ids that are given out in ascending order and never twice, as those of nodes: pages
 * of slots instead of a hash map, which takes four times as long to grow, and as much memory. A
 * page goes when nothing is on it any more.
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

  /** @param id a whole number from 0 that has nothing yet */
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

  /** False where there was nothing. */
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

  /** Also while it changes: what is not there any more is passed over. */
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

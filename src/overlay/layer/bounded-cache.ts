/**
 * An LRU cache of open descriptors. The bound is a function, because it can change at run time. The
 * cache closes the least recently used entry first.
 */

import { LRUCache } from 'lru-cache'

export class BoundedCache<K extends object, V extends object | number> {
  readonly #lru: LRUCache<K, V>
  readonly #bound: () => number

  /** @param most an upper limit of `bound` */
  constructor(most: number, bound: () => number, close: (value: V, key: K) => void) {
    this.#bound = bound
    this.#lru = new LRUCache<K, V>({ max: most, dispose: close, noDisposeOnSet: true })
  }

  get size(): number {
    return this.#lru.size
  }

  get(key: K): V | undefined {
    return this.#lru.get(key)
  }

  peek(key: K): V | undefined {
    return this.#lru.peek(key)
  }

  has(key: K): boolean {
    return this.#lru.has(key)
  }

  set(key: K, value: V): void {
    this.#lru.set(key, value)
    this.trim()
  }

  delete(key: K): void {
    this.#lru.delete(key)
  }

  /** Closes entries until the cache is within the bound. */
  trim(): void {
    const bound = this.#bound()
    while (this.#lru.size > bound) this.#lru.pop()
  }

  /**
   * Closes the least recently used half of the entries, but keeps `least` of them. Returns false if
   * it closed nothing.
   */
  halve(least = 0): boolean {
    const { size } = this.#lru
    const half = Math.min((size + 1) >> 1, size - least)
    for (let n = half; n > 0; n--) this.#lru.pop()
    return half > 0
  }

  /** Closes all entries, or only those whose key satisfies `isMeant`. */
  close(isMeant?: (key: K) => boolean): void {
    if (isMeant !== undefined) {
      for (const key of [...this.#lru.keys()].filter(isMeant)) this.#lru.delete(key)
      return
    }
    // Neither `clear` nor `keys`: the first use of their generators takes longer than the rest of a
    // union's end.
    while (this.#lru.pop() !== undefined);
  }
}

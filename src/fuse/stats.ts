/** Counters that are asked for here and answered elsewhere: by a thread, or another process. */

export type Stats = Record<string, number>

export class AskedStats {
  readonly #asked = new Map<number, (stats: Stats) => void>()
  #nextId = 1

  /**
   * @param tell passes the question on; false where nobody is there
   * @returns the counters; none where nobody answers
   */
  ask(tell: (id: number) => boolean): Promise<Stats> {
    const id = this.#nextId++
    if (!tell(id)) return Promise.resolve({})
    return new Promise(resolve => this.#asked.set(id, resolve))
  }

  answer(id: number, stats: Stats): void {
    this.#asked.get(id)?.(stats)
    this.#asked.delete(id)
  }

  /** Nobody answers any more. */
  end(): void {
    for (const resolve of this.#asked.values()) resolve({})
    this.#asked.clear()
  }
}

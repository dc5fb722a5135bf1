/** Queries that another thread or process answers, such as its counters. */

export type Stats = Record<string, number>

/** Queries without an answer yet. */
export class Asked<T> {
  readonly #asked = new Map<number, (answer: T) => void>()
  readonly #nothing: T
  #nextId = 1

  /** @param nothing the answer if none arrives */
  constructor(nothing: T) {
    this.#nothing = nothing
  }

  /**
   * @param tell sends the query; false if the other side has ended
   * @returns the answer
   */
  ask(tell: (id: number) => boolean): Promise<T> {
    const id = this.#nextId++
    if (!tell(id)) return Promise.resolve(this.#nothing)
    return new Promise(resolve => this.#asked.set(id, resolve))
  }

  answer(id: number, answer: T): void {
    this.#asked.get(id)?.(answer)
    this.#asked.delete(id)
  }

  /** The other side has ended: no more answers arrive. */
  end(): void {
    for (const resolve of this.#asked.values()) resolve(this.#nothing)
    this.#asked.clear()
  }
}

export class AskedStats extends Asked<Stats> {
  constructor() {
    super({})
  }
}

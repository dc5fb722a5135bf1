/** Counters that are asked for here and answered elsewhere: by a thread, or another process. */

export type Stats = Record<string, number>

/** Questions that wait for their answers. */
export class Asked<T> {
  readonly #asked = new Map<number, (answer: T) => void>()
  readonly #nothing: T
  #nextId = 1

  /** @param nothing the answer where nobody gives one */
  constructor(nothing: T) {
    this.#nothing = nothing
  }

  /**
   * @param tell passes the question on; false where nobody is there
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

  /** Nobody answers any more. */
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

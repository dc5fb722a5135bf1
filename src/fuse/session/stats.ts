/** Queries that another thread or process answers, such as its counters. */

export type Stats = Record<string, number>

/** Queries without an answer yet. */
export class Queries<T> {
  readonly #pending = new Map<number, (answer: T) => void>()
  readonly #nothing: T
  #nextId = 1

  /** @param nothing the answer if none arrives */
  constructor(nothing: T) {
    this.#nothing = nothing
  }

  /**
   * @param send sends the query; false if the other side has ended
   * @returns the answer
   */
  ask(send: (id: number) => boolean): Promise<T> {
    const id = this.#nextId++
    if (!send(id)) return Promise.resolve(this.#nothing)
    return new Promise(resolve => this.#pending.set(id, resolve))
  }

  answer(id: number, answer: T): void {
    this.#pending.get(id)?.(answer)
    this.#pending.delete(id)
  }

  /** The other side has ended: no more answers arrive. */
  end(): void {
    for (const resolve of this.#pending.values()) resolve(this.#nothing)
    this.#pending.clear()
  }
}

export class StatsQueries extends Queries<Stats> {
  constructor() {
    super({})
  }
}

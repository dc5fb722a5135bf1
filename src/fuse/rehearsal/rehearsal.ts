/**
 * Practice before the first caller. A program that was just started runs its code slowly, until the
 * engine has seen which parts are worth compiling. So a new server goes through requests of all kinds by
 * itself, on a union of its own, while nobody asks for anything. It takes a part of a second of one
 * processor, once.
 */

import { openPath } from '../../sys/at.js'
import { O_WRONLY } from '../../sys/constants.js'
import { close } from '../../sys/io.js'
import { Asker, notifierInto, type Likeness } from './asker.js'
import { compileAsUsual, compileEagerly } from './engine.js'
import { changeMany, playFile, playLower, playMerged, readFolder, removeLower } from './scenes.js'
import { FILES, openStage, type Stage } from './stage.js'

/**
 * So many turns are practised: 1.4 s (passthrough) to 1.8 s (cached) with two processors; on a single one, where the engine's own
 * threads take part of it, 2.1 to 2.6 s. Then 5 to 11 functions of what is practised are left to compile; with 1,100 turns, and
 * 1 s more, two to five.
 */
const ENOUGH = 700
/** But no longer than that, in milliseconds, where all is slow. */
const MOST_MS = 5000
/** From this turn on, what runs seldom is to be compiled, too, and played more. */
const LAST = 350
/** After so much it looks whether anybody asks. Measured: 1.2 ms in the median; at first, with nothing compiled, up to 30. */
const SLICE_MS = 1

/** At this turn one union makes way for a new one: what is compiled by then has to go for that, too. */
const RENEWED = 100

/** Folders of this program, as they are built and as they are written. */
const FOLDERS = ['overlay', 'fuse', 'sys', 'cli']

/** In this order; not first what has most in it, since nothing is compiled yet. */
const SCENES = [playLower, playFile, playMerged, playFile]
const LAST_SCENES = [playMerged, playLower, removeLower, changeMany]

interface Company {
  readonly stage: Stage
  readonly asker: Asker
}

const meet = (like: Likeness, sink: number): Company => {
  const { writeback, noOpen = false } = like.wish
  const passthrough = like.wish.io === 'passthrough'
  const stage = openStage({ writeback, passthrough, noOpen, notifier: notifierInto(sink) })
  return { stage, asker: new Asker(stage.ops, like, sink) }
}

export class Rehearsal {
  /** Two: what is compiled for one union alone has to be compiled again for the next. */
  readonly #companies: Company[] = []
  readonly #like: Likeness
  readonly #sink = openPath('/dev/null', O_WRONLY)
  #spent = 0
  #turn = 0
  #closed = false

  /** @param like what the mount's session has */
  constructor(like: Likeness) {
    this.#like = like
    try {
      for (let i = 0; i < 2; i++) this.#companies.push(meet(like, this.#sink))
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** Practises for a moment. False: that was the last time. */
  step(): boolean {
    if (this.#closed) return false
    let more = false
    compileEagerly(this.#turn >= LAST)
    try {
      more = this.#practise() && this.#turn < ENOUGH && this.#spent < MOST_MS
    } finally {
      compileAsUsual(more)
      if (!more) this.close()
    }
    return more
  }

  #practise(): boolean {
    const start = performance.now()
    let now = start
    let more = true
    while (more && now - start < SLICE_MS) {
      more = this.#play(this.#turn++)
      now = performance.now()
    }
    this.#spent += now - start
    return more
  }

  #play(turn: number): boolean {
    if (turn === RENEWED) {
      this.#companies.pop()?.stage.close()
      this.#companies.push(meet(this.#like, this.#sink))
    }
    const { stage, asker } = this.#companies[turn % this.#companies.length]!
    const { restore } = stage
    if (restore === null) return readFolder(asker, FOLDERS[turn % FOLDERS.length]!)
    const n = Math.floor(turn / this.#companies.length)
    const i = (n >> 1) % FILES
    const play = { asker, restore, late: this.#like.wish.writeback }
    const scene = turn < LAST ? SCENES[n % SCENES.length]! : LAST_SCENES[n % LAST_SCENES.length]!
    scene(play, i)
    return true
  }

  /** Ends it. False: it has ended before. */
  close(): boolean {
    if (this.#closed) return false
    this.#closed = true
    for (const { stage } of this.#companies) stage.close()
    if (this.#sink >= 0) close(this.#sink)
    return true
  }
}

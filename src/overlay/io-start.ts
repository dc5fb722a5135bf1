/**
 * Whether a thread has come to life, in memory that it shares with whoever waits for it. It may never do so (a thread
 * takes four descriptors, and the process may have none left), and a thread that serves a union turns no event loop
 * which would tell it.
 *
 * One side alone wins: a thread that was given up finds that out before it does anything.
 */

export const STARTING = 0
export const ALIVE = 1
export const GIVEN_UP = 2

export type StartCell = Int32Array

export const startCell = (): StartCell => new Int32Array(new SharedArrayBuffer(4))

/** Said by the thread, as often as it likes. False: nobody waits for it any more, and it has to do nothing. */
export const comesAlive = (cell: StartCell): boolean =>
  Atomics.compareExchange(cell, 0, STARTING, ALIVE) !== GIVEN_UP

/** False: it has come to life, or was given up, before. */
export const giveUp = (cell: StartCell): boolean =>
  Atomics.compareExchange(cell, 0, STARTING, GIVEN_UP) === STARTING

export const isStarting = (cell: StartCell): boolean => Atomics.load(cell, 0) === STARTING

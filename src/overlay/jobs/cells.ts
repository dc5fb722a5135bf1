/**
 * What the union's thread and a thread for input and output tell each other in memory that they
 * share. The union's thread turns no event loop while it serves: no event tells it that a thread
 * has come to life, or has died. A thread may do neither (it takes four descriptors, and the
 * process may have none left).
 *
 * One side alone wins: a thread that was given up finds that out before it does anything.
 */

const LIFE = 0
/** The number of the task that the thread has begun last. */
const BEGUN = 1
/** The number of the task that the thread is done with, its answer and its signals included. */
const DONE = 2

// LIFE
export const STARTING = 0
export const ALIVE = 1
export const GIVEN_UP = 2
export const DEAD = 3

/** The first task of a thread: to load its files. */
export const LOADING = 0

export type ThreadCell = Int32Array

export const threadCell = (): ThreadCell => {
  const cell = new Int32Array(new SharedArrayBuffer(12))
  cell.fill(LOADING - 1, BEGUN)
  return cell
}

/**
 * Said by the thread, as often as it likes. False: nobody waits for it any more, and it has to do
 * nothing.
 */
export const markAlive = (cell: ThreadCell): boolean =>
  Atomics.compareExchange(cell, LIFE, STARTING, ALIVE) !== GIVEN_UP

/** False: it has come to life, or was given up, before. */
export const giveUp = (cell: ThreadCell): boolean =>
  Atomics.compareExchange(cell, LIFE, STARTING, GIVEN_UP) === STARTING

export const isStarting = (cell: ThreadCell): boolean => Atomics.load(cell, LIFE) === STARTING

/** Said by the thread, as the last thing that it does. */
export const markDead = (cell: ThreadCell): void => void Atomics.store(cell, LIFE, DEAD)

export const isDead = (cell: ThreadCell): boolean => Atomics.load(cell, LIFE) === DEAD

export const markBegun = (cell: ThreadCell, task: number): void =>
  void Atomics.store(cell, BEGUN, task)

/**
 * Whether a task that was not answered may have been done. The thread is dead, or does nothing any
 * more.
 */
export const hasBegun = (cell: ThreadCell, task: number): boolean =>
  Atomics.load(cell, BEGUN) === task

export const markDone = (cell: ThreadCell, task: number): void =>
  void Atomics.store(cell, DONE, task)

/**
 * Whether the thread does nothing any more for a task and those before it: no answer follows, no
 * signal.
 */
export const isDone = (cell: ThreadCell, task: number): boolean => {
  const life = Atomics.load(cell, LIFE)
  if (life === DEAD || life === GIVEN_UP) return true
  return ((Atomics.load(cell, DONE) - task) | 0) >= 0
}

/** Whether a union has ended: what a thread has not begun for it is to be done no more. */
export type EndCell = Int32Array

export const endCell = (): EndCell => new Int32Array(new SharedArrayBuffer(4))

export const markEnded = (cell: EndCell): void => void Atomics.store(cell, 0, 1)

export const hasEnded = (cell: EndCell): boolean => Atomics.load(cell, 0) === 1

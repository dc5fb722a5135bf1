/**
 * Shared memory between the union's thread and a pool thread. The union's thread runs no event loop
 * while it serves, so it gets no event when a pool thread starts or dies. A pool thread may fail to
 * start: it requires four descriptors, and the process may have none left.
 *
 * Transitions are atomic, so only one side succeeds. A thread that was given up notices it before
 * it does anything.
 */

const LIFE = 0
/** The number of the last task that the thread has begun. */
const BEGUN = 1
/**
 * The number of the last task that the thread has completed, including its answer and its signals.
 */
const DONE = 2

// Values of LIFE.
export const STARTING = 0
export const ALIVE = 1
export const GIVEN_UP = 2
export const DEAD = 3

/** The first task of a thread: loading its modules. */
export const LOADING = 0

export type ThreadCell = Int32Array

export const threadCell = (): ThreadCell => {
  const cell = new Int32Array(new SharedArrayBuffer(12))
  cell.fill(LOADING - 1, BEGUN)
  return cell
}

/**
 * Called by the thread; calls after the first have no effect. Returns false if the thread was given
 * up: it must do nothing then.
 */
export const markAlive = (cell: ThreadCell): boolean =>
  Atomics.compareExchange(cell, LIFE, STARTING, ALIVE) !== GIVEN_UP

/** Returns false if the thread had started, or was given up, before. */
export const giveUp = (cell: ThreadCell): boolean =>
  Atomics.compareExchange(cell, LIFE, STARTING, GIVEN_UP) === STARTING

export const isStarting = (cell: ThreadCell): boolean => Atomics.load(cell, LIFE) === STARTING

/** The last action of the thread. */
export const markDead = (cell: ThreadCell): void => void Atomics.store(cell, LIFE, DEAD)

export const isDead = (cell: ThreadCell): boolean => Atomics.load(cell, LIFE) === DEAD

export const markBegun = (cell: ThreadCell, task: number): void =>
  void Atomics.store(cell, BEGUN, task)

/**
 * Whether a task without an answer may have been done. Only valid if the thread is dead or does
 * nothing more.
 */
export const hasBegun = (cell: ThreadCell, task: number): boolean =>
  Atomics.load(cell, BEGUN) === task

export const markDone = (cell: ThreadCell, task: number): void =>
  void Atomics.store(cell, DONE, task)

/**
 * Whether the thread has completed a task and all earlier ones: neither an answer nor a signal
 * follows.
 */
export const isDone = (cell: ThreadCell, task: number): boolean => {
  const life = Atomics.load(cell, LIFE)
  if (life === DEAD || life === GIVEN_UP) return true
  return ((Atomics.load(cell, DONE) - task) | 0) >= 0
}

/** Set at the end of a union: a thread skips tasks of the union that it has not begun. */
export type EndCell = Int32Array

export const endCell = (): EndCell => new Int32Array(new SharedArrayBuffer(4))

export const markEnded = (cell: EndCell): void => void Atomics.store(cell, 0, 1)

export const hasEnded = (cell: EndCell): boolean => Atomics.load(cell, 0) === 1

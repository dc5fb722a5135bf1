/**
 * How many descriptors the unions of this thread may keep open that they can open again. The
 * process has a limit, and its threads share what that leaves. Each has its own copy of this
 * module; what they share is told in memory that they share (server/thread.ts).
 */

/**
 * How many threads serve unions, and how many descriptors their unions need as long as they live.
 */
export const THREADS = 0
export const RESERVED = 1

/**
 * Of a union, beside one for each layer: the connection, the work directory and index, locks, what
 * wakes its thread, and its mark.
 */
const RESERVED_PER_UNION = 12
export const reservedBy = (layers: number): number => RESERVED_PER_UNION + layers

/** Descriptors that are left to open files, threads and everything else. */
const SPARE = 64
/** No budget is larger. */
export const MAX_BUDGET = 4096
const MIN_BUDGET = 16

/** A process whose unions all have this thread: one that has not been told otherwise. */
let shared: Int32Array = Int32Array.of(1, RESERVED_PER_UNION)

export const shareCounters = (cell: Int32Array): void => {
  shared = cell
}

let limit = Infinity

/** @param descriptors how many the process may have open */
export const setDescriptorLimit = (descriptors: number): void => {
  limit = descriptors
}

/** A part of what the limit leaves, 1 for all of it. */
const budget = (part: number): number => {
  const left = limit - SPARE - Atomics.load(shared, RESERVED)
  const threads = Math.max(1, Atomics.load(shared, THREADS))
  return Math.max(MIN_BUDGET, Math.min(MAX_BUDGET, Math.floor((left * part) / threads)))
}

/** For directories of layers: half. */
export const directoryBudget = (): number => budget(1 / 2)
/** For standing handles: half of what directories leave. */
export const inodeFileBudget = (): number => budget(1 / 4)

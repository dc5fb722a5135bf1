/**
 * The budget of file descriptors that the unions of this thread may keep open and can reopen later.
 * The process has one limit (RLIMIT_NOFILE). The threads share what remains of it. Each thread has
 * its own copy of this module. The counters are in memory that all threads share
 * (server/thread.ts).
 */

/**
 * Indices of the shared counters: the number of threads that serve unions, and the number of
 * descriptors that their unions hold for their whole life.
 */
export const THREADS = 0
export const RESERVED = 1

/**
 * Descriptors of a union besides one for each layer: the connection, the workdir, the index, locks,
 * the eventfds that wake its thread, and its marker file.
 */
const RESERVED_PER_UNION = 12
export const reservedBy = (layers: number): number => RESERVED_PER_UNION + layers

/** Descriptors that are reserved for open files, threads and everything else. */
const SPARE = 64
/** The maximum of a budget. */
export const MAX_BUDGET = 4096
const MIN_BUDGET = 16

/**
 * The counters of a process with a single union thread, until `shareCounters` sets the shared ones.
 */
let shared: Int32Array = Int32Array.of(1, RESERVED_PER_UNION)

export const shareCounters = (cell: Int32Array): void => {
  shared = cell
}

let limit = Infinity

/** @param descriptors the RLIMIT_NOFILE of the process */
export const setDescriptorLimit = (descriptors: number): void => {
  limit = descriptors
}

/** @param part the share of the remaining descriptors, 1 for all of them */
const budget = (part: number): number => {
  const left = limit - SPARE - Atomics.load(shared, RESERVED)
  const threads = Math.max(1, Atomics.load(shared, THREADS))
  return Math.max(MIN_BUDGET, Math.min(MAX_BUDGET, Math.floor((left * part) / threads)))
}

/** The budget for directories of layers: half of the remaining descriptors. */
export const directoryBudget = (): number => budget(1 / 2)
/** The budget of the inode file cache: half of what directories leave. */
export const inodeFileBudget = (): number => budget(1 / 4)

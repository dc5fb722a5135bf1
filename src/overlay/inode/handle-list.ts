/**
 * The open files of a node, in an order: first those that may write, then those that have a
 * descriptor, then the rest. So the first one tells whether anybody may write, and whether there is
 * a descriptor; and to take one out takes no search.
 */

import type { FileHandle } from './node.js'
import type { Node } from './node.js'

const rank = (handle: FileHandle): number => (handle.writable ? 0 : handle.fd >= 0 ? 1 : 2)

/** Where those of a higher rank begin. */
function endOf(list: readonly FileHandle[], wanted: number, length: number): number {
  let low = 0
  let high = length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (rank(list[middle] as FileHandle) <= wanted) low = middle + 1
    else high = middle
  }
  return low
}

function swap(list: FileHandle[], a: number, b: number): void {
  if (a === b) return
  const one = list[a] as FileHandle
  const other = list[b] as FileHandle
  list[a] = other
  list[b] = one
  other.slot = a
  one.slot = b
}

/** Moves the handle at `slot`, behind all others, to the end of those of rank `to`. */
function forward(list: FileHandle[], slot: number, to: number): void {
  let at = slot
  for (let above = 1; above >= to; above--) {
    const end = endOf(list, above, at)
    swap(list, at, end)
    at = end
  }
}

export function addHandle(list: FileHandle[], handle: FileHandle): void {
  handle.slot = list.push(handle) - 1
  forward(list, handle.slot, rank(handle))
}

/** Gives a handle that had no descriptor one. @param list that of its node */
export function setFd(list: FileHandle[] | null, handle: FileHandle, fd: number): void {
  if (list === null || list[handle.slot] !== handle) {
    handle.fd = fd
    return
  }
  const before = rank(handle)
  // As the last of those that have none.
  if (before === 2) swap(list, handle.slot, endOf(list, 1, list.length))
  handle.fd = fd
}

export function removeHandle(list: FileHandle[], handle: FileHandle): void {
  let at = handle.slot
  if (list[at] !== handle) return
  for (let own = rank(handle); own < 2; own++) {
    const last = endOf(list, own, list.length) - 1
    if (last > at) {
      swap(list, at, last)
      at = last
    }
  }
  swap(list, at, list.length - 1)
  list.pop()
}

/** Whether somebody has the node open for writing. */
export const isOpenToWrite = (node: Node): boolean => node.handles?.[0]?.writable === true

/**
 * Whether somebody has it open who may map it in pages of which the kernel keeps no time
 * (`Ops.mappable`).
 */
export function isMappable(node: Node): boolean {
  for (const handle of node.handles ?? []) {
    if (!handle.writable) return false
    if (handle.mappable) return true
  }
  return false
}

/** A handle that has a descriptor. */
export function withDescriptor(list: readonly FileHandle[] | null): FileHandle | undefined {
  const first = list?.[0]
  return first !== undefined && first.fd >= 0 ? first : undefined
}

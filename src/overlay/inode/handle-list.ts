/**
 * The open files of a node, sorted by rank: writable handles, then handles with a descriptor, then
 * the rest. The first handle shows whether the node is open for writing and whether a descriptor
 * exists. Removal needs no search, because each handle knows its index.
 */

import type { FileHandle } from './node.js'
import type { Node } from './node.js'

const rank = (handle: FileHandle): number => (handle.writable ? 0 : handle.fd >= 0 ? 1 : 2)

/** The end of the handles of rank `wanted` and below. */
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

/**
 * Moves the handle at `slot` to the end of the handles of rank `to`. All other handles before
 * `slot` are sorted.
 */
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

/**
 * Sets the descriptor of a handle that had none.
 *
 * @param list the list of its node
 */
export function setFd(list: FileHandle[] | null, handle: FileHandle, fd: number): void {
  if (list === null || list[handle.slot] !== handle) {
    handle.fd = fd
    return
  }
  const before = rank(handle)
  // Its new place is after the last handle with a descriptor.
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

/** Whether the node is open for writing. */
export const isOpenToWrite = (node: Node): boolean => node.handles?.[0]?.writable === true

/**
 * Whether the node is open for writing and its pages may be mapped without the kernel keeping their
 * mtime (`Ops.mappable`).
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

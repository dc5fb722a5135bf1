/**
 * Which unions of a thread give nodes back when its heap has little room left
 * (overlay/inode/heap.ts): the largest. Where the kernel needs all of them, or can't be asked,
 * those that have more than their part get no further ones, and the others do.
 */

import { heap as threadHeap } from '../overlay/inode/heap.js'

export interface Weighed {
  readonly nodes: number
  /** No further nodes are made. */
  full: boolean
  /** Has the kernel forget half of them, as far as nobody uses them. */
  giveBack(): void
}

export const balance = (
  unions: readonly Weighed[],
  heap: { isHigh: boolean; isFull: boolean } = threadHeap,
): void => {
  let total = 0
  for (const { nodes } of unions) total += nodes
  for (const union of unions) union.full = heap.isFull && union.nodes * unions.length >= total
  if (!heap.isHigh) return
  unions
    .reduce<Weighed | undefined>(
      (most, union) => (most === undefined || union.nodes > most.nodes ? union : most),
      undefined,
    )
    ?.giveBack()
}

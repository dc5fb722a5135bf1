/**
 * If a thread's heap is nearly full (overlay/inode/heap.ts), its largest union gives nodes back. If
 * the heap is full nevertheless, unions that have at least the average number of nodes get no
 * further ones; the others do.
 */

import { heap as threadHeap } from '../overlay/inode/heap.js'

export interface Weighed {
  readonly nodes: number
  /** The union creates no further nodes. */
  full: boolean
  /** Has the kernel forget half of the nodes, as far as they are not in use. */
  forgetUnused(): void
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
    ?.forgetUnused()
}

/** What the code of this directory needs of a union. */

import type { Logger } from '../../log.js'
import type { Ino } from '../../sys/stat.js'
import type { IoPool } from '../jobs/pool.js'
import type { SlowLayers } from '../jobs/slow-layers.js'
import type { UnionOptions, WhiteoutForm } from '../options.js'
import type { DirectoryFds, Layer } from './layer.js'
import type { OverlayXattrs } from './overlay-xattrs.js'
import type { Trust } from './trust.js'

export interface LayerContext {
  readonly options: UnionOptions
  readonly log: Logger
  /** Null without one. A union that only reads may have one, too. */
  readonly upper: Layer | null
  /** Top first. */
  readonly lowers: Layer[]
  readonly fds: DirectoryFds
  readonly xattrs: OverlayXattrs
  /** Whose redirects and metadata copies are believed. */
  readonly trust: Trust
  /** Layers may keep owners, modes and types in attributes (stat-override.ts). */
  readonly override: boolean
  /** What the system says of a layer's objects may not be what counts (stat-override.ts:amend). */
  readonly appliesOverrides: boolean
  readonly pool: IoPool
  /** Null: all lower layers answer by themselves. */
  readonly slow: SlowLayers | null
  /** File systems in the stack; with one, inode numbers are shown as they are. */
  readonly fsCount: number
  /** Null with a read-only union. */
  readonly workdir: { readonly form: Exclude<WhiteoutForm, 'auto'> } | null
}

/**
 * Inode numbers below this leave room for the file system's number above them in a safe integer.
 */
const PLAIN_INO_LIMIT = 2 ** 44

/**
 * The inode number that is shown for a real one: itself where all layers share a file system, else
 * with the file system's number in the top bits (kernel: xino).
 */
export function shownIno(u: Pick<LayerContext, 'fsCount'>, layer: Layer, ino: Ino): Ino {
  if (layer.fsIndex === 0 || u.fsCount === 1) return ino
  if (typeof ino === 'number' && ino < PLAIN_INO_LIMIT) return ino + layer.fsIndex * PLAIN_INO_LIMIT
  return BigInt.asUintN(64, BigInt(ino) ^ (BigInt(layer.fsIndex) << 54n))
}

/** Top first. */
export const layersOf = (u: LayerContext): Layer[] =>
  u.upper === null ? u.lowers : [u.upper, ...u.lowers]

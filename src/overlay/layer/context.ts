/** The part of a union's state that this directory uses. */

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
  /** Null if the union has no upper layer. A read-only union may have an upper layer. */
  readonly upper: Layer | null
  /** Top first. */
  readonly lowers: Layer[]
  readonly fds: DirectoryFds
  readonly xattrs: OverlayXattrs
  /** Determines which redirect and metacopy xattrs are trusted. */
  readonly trust: Trust
  /** The upper layer has stat overrides (stat-override.ts). Lower layers may have them. */
  readonly override: boolean
  /**
   * stat(2) on a layer may return other attributes than the union uses
   * (stat-override.ts:applyOverride).
   */
  readonly appliesOverrides: boolean
  readonly pool: IoPool
  /** Null if no lower layer is slow (sys/slow.ts). */
  readonly slow: SlowLayers | null
  /**
   * The number of file systems in the stack. With a single file system, inode numbers are shown
   * unchanged.
   */
  readonly fsCount: number
  /** Null for a read-only union. */
  readonly workdir: { readonly form: Exclude<WhiteoutForm, 'auto'> } | null
}

/** Inode numbers below this limit leave room for the index of the file system in a safe integer. */
const PLAIN_INO_LIMIT = 2 ** 44

/**
 * The inode number that is shown for a real inode number: the same number if all layers share a
 * file system, otherwise with the index of the file system in the top bits (kernel: xino).
 */
export function shownIno(u: Pick<LayerContext, 'fsCount'>, layer: Layer, ino: Ino): Ino {
  if (layer.fsIndex === 0 || u.fsCount === 1) return ino
  if (typeof ino === 'number' && ino < PLAIN_INO_LIMIT) return ino + layer.fsIndex * PLAIN_INO_LIMIT
  return BigInt.asUintN(64, BigInt(ino) ^ (BigInt(layer.fsIndex) << 54n))
}

/** Top first. */
export const layersOf = (u: LayerContext): Layer[] =>
  u.upper === null ? u.lowers : [u.upper, ...u.lowers]

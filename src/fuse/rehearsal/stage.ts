/**
 * A union to practise on. Best is one of its own on a tmpfs that is mounted nowhere, where everything can be
 * done; whoever may not have that reads the folder of this program.
 */

import { fileURLToPath } from 'node:url'
import { silentLogger } from '../../log.js'
import { defaultUnionOptions, type UnionOptions } from '../../overlay/options.js'
import { openUnion, type Overlay } from '../../overlay/overlay.js'
import { fdPath, futimens, mkdirat, openat, rmdirat, symlinkat, unlinkat } from '../../sys/at.js'
import { O_CREAT, O_DIRECTORY, O_PATH, O_WRONLY } from '../../sys/constants.js'
import { close, write } from '../../sys/io.js'
import { openTmpfs } from '../../sys/mount.js'
import type { Notifier } from '../../overlay/ops.js'

/** A folder of both layers, and some of the lower layer alone. */
export const MERGED = 'merged'
export const LOWERS = 8
export const lowerName = (i: number): string => `lower-${i % LOWERS}`
/** What is in each of them, in the lower layer: that many files, and a symlink. */
export const FILES = 16
export const SYMLINK = 'symlink'
export const fileName = (i: number): string => `file-${i}`

/** When they were written, in seconds. */
export const TIME = 1_000_000_000

const SIZE = '4m'
const TEXT = Buffer.alloc(4096, 'practice ')

export interface Stage {
  readonly ops: Overlay
  /**
   * Puts a file back as it was, by taking away its copy or its whiteout, and that of its folder if it is of the
   * lower layer alone. Null: nothing can be written.
   */
  readonly restore: ((folder: string, name: string) => void) | null
  close(): void
}

/** How the union that is served was made. */
export interface Manner {
  writeback: boolean
  passthrough: boolean
  noOpen: boolean
  notifier: Notifier
}

const open = (options: Partial<UnionOptions>, manner: Manner): Overlay => {
  const deps = { log: silentLogger, ...manner, checked: true as const }
  return openUnion({ ...defaultUnionOptions, ...options }, deps)
}

/** @returns false where something could not be made */
const build = (root: number): boolean => {
  for (const name of ['l', 'u', 'w', `u/${MERGED}`]) {
    if (mkdirat(root, name, 0o755) < 0) return false
  }
  const names = [MERGED, ...Array.from({ length: LOWERS }, (_, i) => lowerName(i))]
  return names.every(name => fill(root, `l/${name}`))
}

const fill = (root: number, folder: string): boolean => {
  if (mkdirat(root, folder, 0o755) < 0) return false
  for (let i = 0; i < FILES; i++) {
    const fd = openat(root, `${folder}/${fileName(i)}`, O_CREAT | O_WRONLY, 0o644)
    if (fd < 0) return false
    write(fd, TEXT, 0, TEXT.length)
    futimens(fd, TIME, 0, TIME, 0)
    close(fd)
  }
  return symlinkat(fileName(0), root, `${folder}/${SYMLINK}`) >= 0
}

const writable = (root: number, manner: Manner): Stage | null => {
  if (!build(root)) return null
  const upper = openat(root, 'u', O_PATH | O_DIRECTORY)
  if (upper < 0) return null
  try {
    const at = fdPath(root)
    const ops = open({ lower: [`${at}/l`], upper: `${at}/u`, work: `${at}/w` }, manner)
    const end = (): void => {
      ops.close()
      close(upper)
      close(root)
    }
    const restore = (folder: string, name: string): void => {
      unlinkat(upper, `${folder}/${name}`)
      if (folder !== MERGED) rmdirat(upper, folder)
    }
    return { ops, restore, close: end }
  } catch (error) {
    close(upper)
    throw error
  }
}

export const openStage = (manner: Manner): Stage => {
  const root = openTmpfs(SIZE)
  if (root >= 0) {
    try {
      const stage = writable(root, manner)
      if (stage !== null) return stage
    } catch {
      // Then without: nothing depends on it.
    }
    close(root)
  }
  const program = fileURLToPath(new URL('../../', import.meta.url))
  const ops = open({ lower: [program], readOnly: true }, { ...manner, writeback: false })
  return { ops, restore: null, close: () => ops.close() }
}

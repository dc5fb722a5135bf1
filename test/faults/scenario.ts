/** A scenario of the fault injection, and operations that several scenarios use. */

import { Entry, Opened, ROOT_ID } from '../../src/overlay/ops.js'
import type { UnionOptions } from '../../src/overlay/options.js'
import { E } from '../../src/sys/errno.js'
import * as sys from '../helpers/syscalls.js'
import { callerOf, type UnionFs } from '../helpers/union.js'
import type { Mode } from './modes.js'

/** The answer of an operation: 0 or more, or a text that is the same in each run, or -errno. */
export type Answer = number | string

export const isError = (answer: Answer): answer is number =>
  typeof answer === 'number' && answer < 0

/** One operation on the layers of `layersFor`. */
export interface Scenario {
  name: string
  options?: Partial<UnionOptions>
  /** Runs in an earlier mount. */
  prepare?: (fs: UnionFs) => Promise<unknown>
  /** Changes the directories after that mount, without a mount. */
  litter?: (directories: { upper: string; work: string }) => void
  /** Runs before the operation, in the same union. */
  begin?: (fs: UnionFs) => Promise<unknown>
  /** The operation. Null: opening and closing a union. */
  run: ((fs: UnionFs) => Promise<Answer>) | null
  /** It also fails without a fault. */
  refused?: true
  /** It changes a file's data, and so its times, until the kernel's write-back cache sets them. */
  writes?: true
  /** The modes that support it; by default all. */
  in?: (mode: Mode) => boolean
}

/**
 * Whether overlay xattrs are `user.` xattrs, and devices and files of other owners can't be
 * created.
 */
export const usesUserXattrs = (mode: Mode): boolean => mode === 'userns' || mode === 'user'
export const needsRoot = (mode: Mode): boolean => !usesUserXattrs(mode)

export const NOTES = 'user.note'
export const CAPABILITY = Buffer.from('0100000200040000000000000000000000000000', 'hex').toString(
  'latin1',
)
export const OTHER = { uid: 1000, gid: 1000, umask: 0o027 }

export const opened = async (
  fs: UnionFs,
  path: string,
  flags: number,
  use: (fh: number) => number,
): Promise<number> => {
  const handle = await fs.open(path, flags)
  if (typeof handle === 'number') return handle
  try {
    return await fs.run(() => use(handle.fh))
  } finally {
    fs.ops.release(handle.fh)
  }
}

/** Uses two handles at the same time. */
export const copyRange = async (fs: UnionFs, from: string, to: string): Promise<number> => {
  const source = await fs.open(from, sys.O.RDONLY)
  if (typeof source === 'number') return source
  const target = await fs.open(to, sys.O.RDWR)
  if (typeof target === 'number') {
    fs.ops.release(source.fh)
    return target
  }
  try {
    return await fs.run(() => fs.ops.copyFileRange(source.fh, 0, target.fh, 0, 4, 0))
  } finally {
    fs.ops.release(source.fh)
    fs.ops.release(target.fh)
  }
}

export const listAll = async (
  fs: UnionFs,
  path: string,
  plus: boolean,
): Promise<number | string> => {
  const node = path === '' ? ROOT_ID : await numberOf(fs, path)
  if (node < 0) return node
  const found: string[] = []
  const seen: number[] = []
  const result = plus
    ? fs.ops.readdirplus(node, 0, {
        room: () => true,
        add: (name, _ino, _type, _cookie, entry) => {
          found.push(name)
          seen.push(entry.nodeId)
        },
      })
    : fs.ops.readdir(node, 0, { add: name => found.push(name) > 0 })
  for (const id of seen) if (id > 0) fs.ops.forget(id, 1)
  return result < 0 ? result : found.toSorted().join()
}

export const numberOf = async (fs: UnionFs, path: string): Promise<number> => {
  let node: number = ROOT_ID
  for (const name of path.split('/')) {
    const entry = fs.lookup(node, name)
    if (typeof entry === 'number') return entry
    node = entry.nodeId
  }
  return node
}

/** Creates a file without a name and links it. */
export const tmpfile = async (fs: UnionFs, directory: string, name: string): Promise<number> => {
  const parent = directory === '' ? ROOT_ID : await numberOf(fs, directory)
  if (parent < 0) return parent
  const entry = new Entry()
  const handle = new Opened()
  const made = await fs.run(() =>
    fs.ops.tmpfile(callerOf(fs.caller), parent, sys.S.IFREG | 0o640, sys.O.RDWR, entry, handle),
  )
  if (made < 0) return made
  try {
    // With `noopen` requests name the node.
    const written = fs.pwrite(handle.fh || -entry.nodeId, 'temporary')
    if (written < 0) return written
    return await fs.run(() => fs.ops.link(entry.nodeId, parent, name, new Entry()))
  } finally {
    fs.ops.release(handle.fh)
    fs.ops.forget(entry.nodeId, 1)
  }
}

export const createAs = (fs: UnionFs, path: string, flags: number): Promise<number> =>
  // Uses a handle as CREATE returns it.
  (async () => {
    const cut = path.lastIndexOf('/')
    const parent = cut < 0 ? ROOT_ID : await numberOf(fs, path.slice(0, cut))
    if (parent < 0) return parent
    const entry = new Entry()
    const handle = new Opened()
    const made = await fs.run(() =>
      fs.ops.create(callerOf(fs.caller), parent, path.slice(cut + 1), 0o644, flags, entry, handle),
    )
    if (made < 0) return made
    fs.ops.release(handle.fh)
    fs.ops.forget(entry.nodeId, 1)
    return 0
  })()
export const errnoOf = (result: number): string =>
  Object.entries(E).find(([, n]) => n === -result)?.[0] ?? String(result)

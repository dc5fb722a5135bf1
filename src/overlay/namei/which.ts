/**
 * Explains which layer serves a name, and why. For the `which` command, not for requests of the
 * kernel.
 */

import {
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFREG,
  S_IFSOCK,
} from '../../sys/constants.js'
import { errnoName } from '../../sys/errno.js'
import { Stat } from '../../sys/stat.js'
import {
  DirectoryXattrs,
  Found,
  lookupInDirectory,
  readDirectoryXattrs,
} from '../layer/lookup-layer.js'
import { RealDir } from '../layer/layer.js'
import { findChild } from './lookup.js'
import { resolveMetacopy } from '../copy-up/metacopy.js'
import type { Node } from '../inode/node.js'
import { Pending, ROOT_ID, type ByteString } from '../ops.js'
import { layersOf } from '../layer/context.js'
import type { Union } from './context.js'

/** A real object. */
export interface Real {
  /** 0: the upper layer. Lower layers count from 1, top first. */
  layer: number
  path: string
}

/** The result of the lookup in one layer. */
export interface Step {
  layer: number
  /**
   * `unreached`: the layer does not have the directory, or the directory is hidden. `hidden`: a
   * layer above ends the lookup.
   */
  found: 'nothing' | 'whiteout' | 'file' | 'directory' | 'unreached' | 'hidden'
  /** The path that was looked up; null if none was. */
  path: string | null
  /** A directory that hides the directories of the layers below. */
  opaque: boolean
  /** The name or path in the layers below, if it differs. */
  redirect: string | null
}

export interface Explanation {
  /**
   * The explained path in the union: the requested path, or its first component that is missing or
   * not a directory.
   */
  path: string
  /** Whether `path` is the requested path. */
  whole: boolean
  /** Null: the union has no such name. */
  type: string | null
  /** The real object, or all directories that are merged, top first. */
  served: Real[]
  /** The file with the data of a metadata-only copy. */
  data: Real | null
  /** One for each layer, top first. Empty for the root. */
  steps: Step[]
}

export type Answer = Explanation | { error: string }

const TYPES = new Map([
  [S_IFREG, 'file'],
  [S_IFDIR, 'directory'],
  [S_IFLNK, 'symlink'],
  [S_IFCHR, 'character device'],
  [S_IFBLK, 'block device'],
  [S_IFIFO, 'FIFO'],
  [S_IFSOCK, 'socket'],
])
const st = new Stat()

/** Changes only the state that any lookup of the name would change. */
export const explain = (u: Union, names: readonly ByteString[]): Answer => {
  if (u.slow !== null)
    return {
      error: 'a layer lies on a file system that may keep the server waiting (FUSE, network)',
    }
  const root = u.nodes.get(ROOT_ID)
  if (root === undefined) return { error: 'the union is closed' }
  let node: Node = root
  try {
    for (const [i, name] of names.entries()) {
      const path = names.slice(0, i + 1)
      const steps = stepsOf(u, node, name)
      if (typeof steps === 'number') return failed(path, steps)
      const child = findChild(u, node, name)
      const whole = i === names.length - 1
      if (typeof child === 'number') {
        if (steps.some(({ found }) => found === 'file' || found === 'directory'))
          return failed(path, child)
        return { path: shown(path), whole, type: null, served: [], data: null, steps }
      }
      node = child
      if (whole || !node.isDir) return explainNode(u, node, path, whole, steps)
    }
    return explainNode(u, node, [], true, [])
  } catch (error) {
    if (error instanceof Pending) return { error: 'it is being copied up' }
    throw error
  } finally {
    if (node.lookups === 0) u.nodes.release(node)
  }
}

const failed = (path: readonly ByteString[], result: number): Answer => ({
  error: `${shown(path)}: ${errnoName(result)}`,
})

const explainNode = (
  u: Union,
  node: Node,
  path: readonly ByteString[],
  whole: boolean,
  steps: Step[],
): Answer => {
  const common = { path: shown(path), whole, type: TYPES.get(node.type) ?? 'object', steps }
  if (node.isDir) return { ...common, served: node.dirs.map(dir => realOf(dir)), data: null }
  const result = node.isReg ? resolveMetacopy(u, node) : 0
  if (result < 0) return failed(path, result)
  const served = servedObject(u, node)
  if (served === null) return { error: `${common.path}: nothing leads to it` }
  const { data } = node
  const apart = node.metacopy && data !== null
  return { ...common, served: [served], data: apart ? realOf(data.dir, data.name) : null }
}

/** Mirrors real-object.ts:locate. */
const servedObject = (u: Union, node: Node): Real | null => {
  if (!node.upper) return node.lowerDir === null ? null : realOf(node.lowerDir, node.lowerName)
  const link = node.links?.first
  const [parent, name] =
    node.links === null
      ? [node.parent, node.name]
      : link?.inUpper === true
        ? [link.parent, link.name]
        : [null, '']
  const dir = parent?.upperDir
  if (dir !== undefined && dir !== null) return realOf(dir, name)
  if (node.links === null || node.indexKey === null) return null
  return { layer: 0, path: `${u.options.work ?? ''}/index/${node.indexKey}` }
}

const realOf = (dir: RealDir, name?: ByteString): Real => ({
  layer: dir.layer.index,
  path: pathOf(dir, name),
})

const pathOf = (dir: RealDir, name?: ByteString): string => {
  const names = name === undefined ? [] : [name]
  for (let at: RealDir | null = dir; at !== null && at.parent !== null; at = at.parent)
    names.unshift(at.name)
  return `${dir.layer.path.replace(/\/+$/, '')}${shown(names)}` || '/'
}

const text = (name: ByteString): string => Buffer.from(name, 'latin1').toString('utf8')

const shown = (names: readonly ByteString[]): string =>
  names.length === 0 ? '/' : names.map(name => `/${text(name)}`).join('')

/** The result of each layer for a name of a directory; or -errno. */
const stepsOf = (u: Union, parent: Node, name: ByteString): Step[] | number => {
  const steps: Step[] = []
  const xattrs = new DirectoryXattrs()
  let at = name
  let ended = false
  let directories = 0
  for (const layer of layersOf(u)) {
    const real = parent.dirs.find(dir => dir.layer === layer)
    const step: Step = {
      layer: layer.index,
      found: ended ? 'hidden' : 'unreached',
      path: null,
      opaque: false,
      redirect: null,
    }
    steps.push(step)
    if (ended || real === undefined) continue
    const found = lookupInDirectory(u, real, at, st)
    if (found < 0) return found
    step.path = pathOf(real, at)
    if (found === Found.NOTHING) {
      step.found = 'nothing'
      continue
    }
    if (found !== Found.DIRECTORY) {
      step.found = found === Found.WHITEOUT ? 'whiteout' : directories > 0 ? 'hidden' : 'file'
      ended = true
      continue
    }
    directories++
    step.found = 'directory'
    const read = readDirectoryXattrs(u, new RealDir(layer, real, at), real, at, false, xattrs)
    if (read < 0) return read
    step.opaque = xattrs.opaque
    if (xattrs.redirect !== '') {
      step.redirect = text(xattrs.redirect)
      // The target of an absolute redirect is among the directories in `served`.
      if (xattrs.redirect.startsWith('/')) ended = true
      else at = xattrs.redirect
    }
    if (xattrs.opaque) ended = true
  }
  return steps
}

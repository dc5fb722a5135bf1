/** Reads a whole tree with all its metadata, and compares two of them. */

import { createHash } from 'node:crypto'
import * as sys from './syscalls.js'
import type { Stat } from './syscalls.js'

export interface TreeNode {
  path: string
  stat: Stat
  /** DT_* and inode number of the directory listing. */
  listedType: number
  listedIno: bigint
  /** `name=hex`, sorted. */
  xattrs: string[]
  /** A symlink's target. */
  target: string
  /** A regular file's content. */
  digest: string
}

export interface Tree {
  nodes: Map<string, TreeNode>
  /** Names that a directory lists but that can't be looked up. */
  ghosts: string[]
}

const chunk = Buffer.alloc(1 << 20)

const digestOf = (fd: number, size: number): string => {
  const hash = createHash('sha1')
  let at = 0
  while (at < size) {
    const got = sys.pread(fd, chunk, at)
    if (got < 0) return `read: errno ${-got}`
    if (got === 0) return `end at ${at} of ${size}`
    hash.update(chunk.subarray(0, got))
    at += got
  }
  return hash.digest('hex')
}

/** A small buffer, because the kernel allocates memory for the whole buffer size. */
const ROOM = 1024

export const xattrsOf = (on: sys.XattrTarget): string[] => {
  let names = sys.listxattr(on, ROOM)
  if (names === -34) names = sys.listxattr(on)
  if (typeof names === 'number') return [`list: errno ${-names}`]
  return names.map(name => {
    let value = sys.getxattr(on, name, ROOM)
    if (value === -34) value = sys.getxattr(on, name)
    return `${name}=${typeof value === 'number' ? `errno ${-value}` : value.toString('hex')}`
  })
}

/** Reads all metadata of one name in a directory. */
const readNode = (
  dir: number,
  name: string,
  path: string,
  entry: { type: number; ino: bigint },
  extra: number,
): TreeNode | undefined => {
  const stat = sys.lstat(dir, name)
  if (typeof stat === 'number') {
    if (stat === -2) return undefined
    throw new Error(`lstat ${JSON.stringify(path)}: errno ${-stat}`)
  }
  const node: TreeNode = {
    path,
    stat,
    listedType: entry.type,
    listedIno: entry.ino,
    xattrs: xattrsOf({ path: `/proc/self/fd/${dir}/${name}`, follow: false }),
    target: '',
    digest: '',
  }
  const type = stat.mode & sys.S.IFMT
  if (type === sys.S.IFLNK) {
    const target = sys.readlinkat(dir, name)
    node.target = typeof target === 'number' ? `errno ${-target}` : target
  } else if (type === sys.S.IFREG) {
    const fd = sys.openat(dir, name, sys.O.RDONLY | sys.O.NOFOLLOW | extra)
    node.digest = fd < 0 ? `open: errno ${-fd}` : digestOf(fd, stat.size)
    if (fd >= 0) sys.close(fd)
  }
  return node
}

/** Reads the tree under `root`. With `quiet` no access time is changed. */
export const readTree = (root: string, quiet = false): Tree => {
  const extra = quiet ? sys.O.NOATIME : 0
  const tree: Tree = { nodes: new Map(), ghosts: [] }
  const walk = (dir: number, prefix: string): void => {
    const entries = sys.allDirents(dir)
    if (typeof entries === 'number')
      throw new Error(`list ${JSON.stringify(prefix)}: errno ${-entries}`)
    entries.sort((a, b) => (a.name < b.name ? -1 : 1))
    for (const entry of entries) {
      if (entry.name === '.' || entry.name === '..') continue
      const path = prefix + entry.name
      const node = readNode(dir, entry.name, path, entry, extra)
      if (node === undefined) {
        tree.ghosts.push(path)
        continue
      }
      tree.nodes.set(path, node)
      if ((node.stat.mode & sys.S.IFMT) !== sys.S.IFDIR) continue
      const fd = sys.openat(
        dir,
        entry.name,
        sys.O.RDONLY | sys.O.DIRECTORY | sys.O.NOFOLLOW | extra,
      )
      if (fd < 0) throw new Error(`open directory ${JSON.stringify(path)}: errno ${-fd}`)
      try {
        walk(fd, `${path}/`)
      } finally {
        sys.close(fd)
      }
    }
  }
  const fd = sys.open(root, sys.O.RDONLY | sys.O.DIRECTORY | extra)
  if (fd < 0) throw new Error(`open ${root}: errno ${-fd}`)
  try {
    const node = readNode(fd, '.', '.', { type: 4, ino: 0n }, extra)
    if (node !== undefined) tree.nodes.set('.', { ...node, listedIno: node.stat.ino })
    walk(fd, '')
  } finally {
    sys.close(fd)
  }
  return tree
}

export interface TreeRules {
  /** Times from this one on count as "now" and are equal to each other. Nanoseconds since 1970. */
  now: bigint
  /** Everything must be equal, including values that a union may choose (for layers). */
  exact?: boolean
}

export interface Difference {
  path: string
  field: string
  expected: string
  got: string
}

export const showTime = (time: bigint): string => {
  const nsec = ((time % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n
  return `${(time - nsec) / 1_000_000_000n}s+${nsec}ns`
}

const sameTime = (a: bigint, b: bigint, now: bigint): boolean => a === b || (a >= now && b >= now)

/** The fields of two stats that differ. */
export const diffStats = (
  expected: Stat,
  got: Stat,
  rules: TreeRules,
): Omit<Difference, 'path'>[] => {
  const out: Omit<Difference, 'path'>[] = []
  const differ = (field: string, a: string, b: string): void => {
    if (a !== b) out.push({ field, expected: a, got: b })
  }
  const isDir = (expected.mode & sys.S.IFMT) === sys.S.IFDIR
  differ('mode', expected.mode.toString(8), got.mode.toString(8))
  differ('uid', String(expected.uid), String(got.uid))
  differ('gid', String(expected.gid), String(got.gid))
  differ(isDir ? 'nlink of a directory' : 'nlink', String(expected.nlink), String(got.nlink))
  differ('rdev', String(expected.rdev), String(got.rdev))
  if (!isDir || rules.exact) differ('size', String(expected.size), String(got.size))
  for (const field of ['atime', 'mtime'] as const)
    if (!sameTime(expected[field], got[field], rules.now))
      differ(field, showTime(expected[field]), showTime(got[field]))
  differ('has birth time', String(expected.btime !== 0n), String(got.btime !== 0n))
  if (rules.exact) {
    differ('ino', String(expected.ino), String(got.ino))
    differ('ctime', showTime(expected.ctime), showTime(got.ctime))
  }
  return out
}

/** For each path the first path of the same inode. */
const firstNames = (tree: Tree): Map<string, string> => {
  const first = new Map<bigint, string>()
  const result = new Map<string, string>()
  for (const node of tree.nodes.values()) {
    const known = first.get(node.stat.ino)
    if (known === undefined) first.set(node.stat.ino, node.path)
    result.set(node.path, known ?? node.path)
  }
  return result
}

export const diffTrees = (expected: Tree, got: Tree, rules: TreeRules): Difference[] => {
  const out: Difference[] = []
  const expectedNames = firstNames(expected)
  const gotNames = firstNames(got)
  for (const [path, a] of expected.nodes) {
    const b = got.nodes.get(path)
    const differ = (field: string, x: string, y: string): void => {
      if (x !== y) out.push({ path, field, expected: x, got: y })
    }
    if (b === undefined) {
      differ('there', 'yes', 'no')
      continue
    }
    for (const d of diffStats(a.stat, b.stat, rules)) differ(d.field, d.expected, d.got)
    differ('listed type', String(a.listedType), String(b.listedType))
    differ(
      'd_ino == st_ino',
      String(a.listedIno === a.stat.ino),
      String(b.listedIno === b.stat.ino),
    )
    differ('xattrs', a.xattrs.join(' '), b.xattrs.join(' '))
    differ('target', a.target, b.target)
    differ('content', a.digest, b.digest)
    differ('same inode as', expectedNames.get(path) ?? '', gotNames.get(path) ?? '')
  }
  for (const path of got.nodes.keys())
    if (!expected.nodes.has(path)) out.push({ path, field: 'there', expected: 'no', got: 'yes' })
  if (rules.exact && expected.ghosts.join() !== got.ghosts.join())
    out.push({
      path: '',
      field: 'names listed and not found',
      expected: expected.ghosts.join(),
      got: got.ghosts.join(),
    })
  return out
}

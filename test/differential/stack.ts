/** Layer stacks: how they are generated (fast-check arbitraries) and created on disk. */

import * as fc from 'fast-check'
import { dirname } from 'node:path/posix'
import * as sys from '../helpers/syscalls.js'
import type { Time } from '../helpers/syscalls.js'
import { XATTR_PREFIX } from './userns.js'

type Kind =
  | 'dir'
  | 'file'
  | 'symlink'
  | 'fifo'
  | 'socket'
  | 'char'
  | 'block'
  | 'whiteout'
  | 'xwhiteout'
  | 'link'

export interface EntrySpec {
  /** Relative to the layer's root; `.` is the root itself. */
  path: string
  kind: Kind
  mode: number
  uid: number
  gid: number
  atime: Time
  mtime: Time
  /** Name, and value in hex. */
  xattrs: [string, string][]
  /** Data at an offset; the gaps are holes. */
  chunks: { at: number; length: number; fill: number }[]
  size: number
  /** The target of a symlink, or the path of the name that a link links. */
  target: string
  opaque: boolean
}

export interface StackSpec {
  /** The topmost layer comes first. */
  lowers: EntrySpec[][]
  /**
   * The content of the upper layer before the mount; null: there is no upper layer, and the union
   * is read-only.
   */
  upper: EntrySpec[] | null
  redirectDir: 'on' | 'off'
  /** The kernel's overlayfs copies only metadata up if that is sufficient. */
  metacopy: boolean
}

export const LONG_NAME = 'n'.repeat(255)
const ODD_NAMES = [LONG_NAME, '\xff\xfe\x80', 'sp ace', 'line\nbreak', '.dot', '-', 'e\xcc\x81']
const COMMON_NAMES = ['a', 'b', 'c', 'd', 'e']

const pick = <T>(...values: T[]): fc.Arbitrary<T> => fc.constantFrom(...values)
const weighted = <T>(...parts: [number, fc.Arbitrary<T>][]): fc.Arbitrary<T> =>
  fc.oneof(...parts.map(([weight, arbitrary]) => ({ weight, arbitrary })))

export const nameArb = weighted([12, pick(...COMMON_NAMES)], [1, pick(...ODD_NAMES)])
export const modeArb = weighted(
  [5, pick(0o644, 0o755, 0o755, 0o777)],
  [
    4,
    pick(
      0,
      0o600,
      0o700,
      0o444,
      0o666,
      0o4755,
      0o2755,
      0o1777,
      0o2775,
      0o6777,
      0o2644,
      0o711,
      0o070,
    ),
  ],
)
export const ownerArb = weighted(
  [4, fc.constant(0)],
  [3, fc.constant(1000)],
  [1, pick(2000, 65534)],
)
/** Far from now, so that a time that was set is not taken for "now". */
export const timeArb: fc.Arbitrary<Time> = pick(
  { sec: 0, nsec: 0 },
  { sec: -1, nsec: 999_999_999 },
  { sec: -300_000_000, nsec: 5 },
  { sec: 1_234_567_890, nsec: 123_456_789 },
  { sec: 1_000_000_000, nsec: 1 },
  { sec: 1_500_000_000, nsec: 0 },
  { sec: 1_600_000_000, nsec: 999_999_999 },
)

interface AclEntry {
  tag: number
  perm: number
  id: number
}
const aclHex = (entries: AclEntry[]): string => {
  const out = Buffer.alloc(4 + entries.length * 8)
  out.writeUInt32LE(2, 0)
  entries.forEach((entry, i) => {
    out.writeUInt16LE(entry.tag, 4 + i * 8)
    out.writeUInt16LE(entry.perm, 6 + i * 8)
    out.writeUInt32LE(entry.id >>> 0, 8 + i * 8)
  })
  return out.toString('hex')
}
export const aclArb = fc
  .record({
    user: fc.nat(7),
    group: fc.nat(7),
    other: fc.nat(7),
    named: fc.option(fc.record({ uid: pick(1000, 2000), perm: fc.nat(7) })),
    namedGroup: fc.option(fc.record({ gid: pick(1000, 2000), perm: fc.nat(7) })),
    mask: fc.nat(7),
  })
  .map(a => {
    const entries: AclEntry[] = [{ tag: 1, perm: a.user, id: -1 }]
    if (a.named) entries.push({ tag: 2, perm: a.named.perm, id: a.named.uid })
    entries.push({ tag: 4, perm: a.group, id: -1 })
    if (a.namedGroup) entries.push({ tag: 8, perm: a.namedGroup.perm, id: a.namedGroup.gid })
    if (a.named || a.namedGroup) entries.push({ tag: 16, perm: a.mask, id: -1 })
    entries.push({ tag: 32, perm: a.other, id: -1 })
    return aclHex(entries)
  })

export const ACL_ACCESS = 'system.posix_acl_access'
export const ACL_DEFAULT = 'system.posix_acl_default'
/** A vfs_cap_data of version 2 with CAP_NET_RAW, effective. */
export const CAPABILITY = '0100000200200000000000000000000000000000'

const hexArb = weighted(
  [6, fc.string({ unit: fc.constantFrom('x', 'y', '\0'), maxLength: 12 })],
  [1, pick('', 'v'.repeat(300))],
).map(text => Buffer.from(text, 'latin1').toString('hex'))

const xattrArb: fc.Arbitrary<[string, string]> = weighted(
  [4, fc.tuple(pick('user.a', 'user.b', 'user.\xff', 'trusted.a'), hexArb)],
  [2, fc.tuple(pick(ACL_ACCESS, ACL_DEFAULT), aclArb)],
  [1, fc.constant<[string, string]>(['security.capability', CAPABILITY])],
)

const chunksArb = weighted<EntrySpec['chunks']>(
  [2, fc.constant([])],
  [
    6,
    fc.array(
      fc.record({ at: fc.nat(6000), length: fc.integer({ min: 1, max: 5000 }), fill: fc.nat(255) }),
      { minLength: 1, maxLength: 2 },
    ),
  ],
  [
    1,
    fc.array(
      fc.record({
        at: fc.nat(100).map(n => n * 4096),
        length: fc.integer({ min: 1, max: 70_000 }),
        fill: fc.nat(255),
      }),
      { minLength: 1, maxLength: 3 },
    ),
  ],
)

export const symlinkTargetArb = weighted(
  [6, nameArb],
  [3, fc.tuple(nameArb, nameArb).map(([a, b]) => `${a}/${b}`)],
  [2, nameArb.map(name => `../${name}`)],
  [1, pick('.', 'nowhere/x', 't'.repeat(1000), '/nonexistent/\xfe')],
)

const pathArb = weighted(
  [3, nameArb],
  [4, fc.tuple(nameArb, nameArb).map(names => names.join('/'))],
  [3, fc.tuple(nameArb, nameArb, nameArb).map(names => names.join('/'))],
)

const kindArb: fc.Arbitrary<Kind> = weighted<Kind>(
  [9, fc.constant('dir')],
  [9, fc.constant('file')],
  [4, fc.constant('link')],
  [4, fc.constant('whiteout')],
  [3, fc.constant('symlink')],
  [1, pick<Kind>('fifo', 'socket', 'char', 'block')],
  [1, fc.constant('xwhiteout')],
)

const entryArb = fc.record({
  path: pathArb,
  kind: kindArb,
  mode: modeArb,
  uid: ownerArb,
  gid: ownerArb,
  atime: timeArb,
  mtime: timeArb,
  xattrs: weighted<EntrySpec['xattrs']>(
    [3, fc.constant([])],
    [1, fc.array(xattrArb, { maxLength: 3 })],
  ),
  chunks: chunksArb,
  tail: weighted([4, fc.constant(0)], [1, fc.nat(30_000)]),
  target: symlinkTargetArb,
  opaque: weighted([4, fc.constant(false)], [1, fc.constant(true)]),
  linkTo: fc.nat(1000),
})

/** Root directories; most are writable for all users. */
const rootArb = fc.record({
  mode: weighted([9, pick(0o777, 0o777, 0o755)], [1, pick(0o1777, 0o2777, 0o700)]),
  uid: ownerArb,
  gid: ownerArb,
  atime: timeArb,
  mtime: timeArb,
  xattrs: weighted<EntrySpec['xattrs']>(
    [5, fc.constant([])],
    [1, fc.array(xattrArb, { maxLength: 2 })],
  ),
})

const layerArb = (maxEntries: number): fc.Arbitrary<EntrySpec[]> =>
  fc
    .tuple(rootArb, fc.array(entryArb, { minLength: maxEntries >> 1, maxLength: maxEntries }))
    .map(([root, raws]) => {
      const entries: EntrySpec[] = [
        { ...root, path: '.', kind: 'dir', chunks: [], size: 0, target: '', opaque: false },
      ]
      const linkable: string[] = []
      for (const { tail, linkTo, ...raw } of raws) {
        const entry: EntrySpec = {
          ...raw,
          size: tail + Math.max(0, ...raw.chunks.map(c => c.at + c.length)),
        }
        if (entry.kind === 'link') entry.target = linkable[linkTo % linkable.length] ?? 'a'
        else if (entry.kind === 'file' || entry.kind === 'symlink' || entry.kind === 'fifo')
          linkable.push(entry.path)
        entries.push(entry)
      }
      return entries
    })

/** By default fast-check starts with small values; noBias generates full sizes from the start. */
export const stackArb: fc.Arbitrary<StackSpec> = fc.noBias(
  fc
    .record({
      lowers: fc.array(layerArb(36), { minLength: 1, maxLength: 4, size: 'max' }),
      upper: weighted<EntrySpec[] | null>(
        [5, layerArb(1)],
        [4, layerArb(30)],
        [1, fc.constant(null)],
      ),
      redirectDir: weighted<'on' | 'off'>([1, fc.constant('off')], [1, fc.constant('on')]),
      metacopy: weighted([2, fc.constant(false)], [1, fc.constant(true)]),
      spare: layerArb(36),
    })
    .map(({ lowers, upper, redirectDir, metacopy, spare }) => ({
      // The kernel needs two lower layers if there is no upper layer.
      lowers: upper === null && lowers.length === 1 ? [...lowers, spare] : lowers,
      upper,
      redirectDir,
      metacopy: metacopy && redirectDir === 'on',
    })),
)

const plain = (layer: EntrySpec[]): EntrySpec[] => layer.filter(entry => entry.kind !== 'link')
export const withoutLinks = (stack: StackSpec): StackSpec => ({
  ...stack,
  lowers: stack.lowers.map(plain),
  upper: stack.upper === null ? null : plain(stack.upper),
})

const must = (result: number, what: string): number => {
  if (result < 0) throw new Error(`building a layer: ${what}: errno ${-result}`)
  return result
}

export const pattern = (length: number, fill: number): Buffer => {
  const out = Buffer.allocUnsafe(length)
  for (let i = 0; i < length; i++) out[i] = (fill + i * 7 + (i >> 8)) & 0xff
  return out
}

const makeNode = (dir: number, entry: EntrySpec): boolean => {
  const { path, kind } = entry
  switch (kind) {
    case 'dir':
      return sys.mkdirat(dir, path, 0o700) === 0
    case 'file': {
      const fd = sys.openat(dir, path, sys.O.CREAT | sys.O.EXCL | sys.O.WRONLY, 0o600)
      if (fd < 0) return false
      for (const c of entry.chunks) sys.pwrite(fd, pattern(c.length, c.fill), c.at)
      must(sys.ftruncate(fd, entry.size), 'ftruncate')
      sys.close(fd)
      return true
    }
    case 'symlink':
      return sys.symlinkat(entry.target, dir, path) === 0
    case 'link':
      return sys.linkat(dir, entry.target, dir, path, 0) === 0
    case 'fifo':
      return sys.mknodat(dir, path, sys.S.IFIFO | 0o600, 0, 0) === 0
    case 'socket':
      return sys.mknodat(dir, path, sys.S.IFSOCK | 0o600, 0, 0) === 0
    case 'char':
      return sys.mknodat(dir, path, sys.S.IFCHR | 0o600, 1, 3) === 0
    case 'block':
      return sys.mknodat(dir, path, sys.S.IFBLK | 0o600, 250, 3) === 0
    case 'whiteout':
      return sys.mknodat(dir, path, sys.S.IFCHR, 0, 0) === 0
    case 'xwhiteout': {
      const fd = sys.openat(dir, path, sys.O.CREAT | sys.O.EXCL | sys.O.WRONLY, 0o600)
      if (fd < 0) return false
      sys.close(fd)
      return true
    }
    default:
      return kind satisfies never
  }
}

/**
 * Creates the layer in the existing empty directory `root`. An entry that can't be created (its
 * parent is a file, or the name exists) is skipped, in the same way in each build of the same
 * entries.
 */
export const buildLayer = (
  root: string,
  entries: EntrySpec[],
  /** Whether a directory of this path is merged with the layers below. */
  merges: (directory: string) => boolean,
  /**
   * Kinds that may exist only in merged directories. The kernel recognizes xattr whiteouts only
   * there. When a directory that is not merged is removed from the upper layer, the kernel takes a
   * whiteout in it for a file.
   */
  onlyMerged: Set<Kind>,
): void => {
  const dir = must(sys.open(root, sys.O.RDONLY | sys.O.DIRECTORY), root)
  const made = new Map<string, EntrySpec>()
  const parentsOf = (entry: EntrySpec): void => {
    const parent = dirname(entry.path)
    if (parent === '.' || made.has(parent)) return
    const above: EntrySpec = {
      ...entry,
      path: parent,
      kind: 'dir',
      opaque: false,
      mode: 0o755,
      xattrs: [],
    }
    parentsOf(above)
    if (makeNode(dir, above)) made.set(parent, above)
  }
  for (const entry of entries) {
    if (entry.path === '.') {
      made.set('.', entry)
      continue
    }
    parentsOf(entry)
    if (onlyMerged.has(entry.kind)) {
      const parent = dirname(entry.path)
      const above = parent.split('/').map((_, i, all) => all.slice(0, i + 1).join('/'))
      if (above.some(path => made.get(path)?.opaque) || !merges(parent)) continue
    }
    if (makeNode(dir, entry)) made.set(entry.path, entry)
  }
  const at = (path: string): sys.XattrTarget => ({
    path: `/proc/self/fd/${dir}/${path}`,
    follow: false,
  })
  const marked = new Set<string>()
  for (const entry of made.values()) {
    if (entry.kind !== 'xwhiteout') continue
    must(sys.setxattr(at(entry.path), `${XATTR_PREFIX}whiteout`, Buffer.alloc(0), 0), 'whiteout')
    marked.add(dirname(entry.path))
  }
  // Children come before their directory, because creating them has changed its times.
  const order = [...made.values()].toSorted((a, b) => (a.path < b.path ? 1 : -1))
  for (const entry of order) {
    const { path, kind } = entry
    if (kind === 'link' || kind === 'whiteout' || kind === 'xwhiteout') continue
    must(sys.fchownat(dir, path, entry.uid, entry.gid, sys.AT_SYMLINK_NOFOLLOW), 'chown')
    if (kind !== 'symlink') must(sys.fchmodat(dir, path, entry.mode), 'chmod')
    // Not every type accepts every xattr; refused ones are left out.
    for (const [name, value] of entry.xattrs)
      sys.setxattr(at(path), name, Buffer.from(value, 'hex'), 0)
    if (kind === 'dir' && path !== '.') {
      if (entry.opaque)
        must(sys.setxattr(at(path), `${XATTR_PREFIX}opaque`, Buffer.from('y'), 0), 'opaque')
      else if (marked.has(path))
        must(sys.setxattr(at(path), `${XATTR_PREFIX}opaque`, Buffer.from('x'), 0), 'opaque')
    }
  }
  if (marked.has('.'))
    must(sys.setxattr(at('.'), `${XATTR_PREFIX}opaque`, Buffer.from('x'), 0), 'opaque')
  for (const entry of order)
    must(sys.utimensat(dir, entry.path, entry.atime, entry.mtime, sys.AT_SYMLINK_NOFOLLOW), 'times')
  must(
    sys.utimensat(
      dir,
      '.',
      made.get('.')?.atime ?? { sec: 0, nsec: 0 },
      made.get('.')?.mtime ?? { sec: 0, nsec: 0 },
      0,
    ),
    'times',
  )
  sys.close(dir)
}

export interface LayerPaths {
  lowers: string[]
  upper: string | null
  work: string | null
}

/** Whether a directory of this path in the layer above would be merged with one in these layers. */
const mergesInto = (layers: string[], path: string): boolean => {
  const parts = path === '.' ? [] : path.split('/')
  for (const layer of layers) {
    let hidden = false
    let missing = false
    for (let i = 1; i <= parts.length; i++) {
      const at = `${layer}/${parts.slice(0, i).join('/')}`
      const stat = sys.lstat(sys.AT_FDCWD, at)
      if (typeof stat === 'number') missing = true
      else if ((stat.mode & sys.S.IFMT) !== sys.S.IFDIR) return false
      if (missing) break
      const mark = sys.getxattr({ path: at, follow: false }, `${XATTR_PREFIX}opaque`)
      if (typeof mark !== 'number' && mark.toString() === 'y') hidden = true
    }
    if (!missing) return true
    if (hidden) return false
  }
  return false
}

/** Builds the whole stack under the existing directory `base`. */
export const buildStack = (base: string, stack: StackSpec): LayerPaths => {
  const directory = (name: string): string => {
    must(sys.mkdirat(sys.AT_FDCWD, `${base}/${name}`, 0o755), name)
    return `${base}/${name}`
  }
  const lowers = stack.lowers.map((_, i) => directory(`l${i}`))
  // The bottom layer is built first, because an xattr whiteout depends on the layers below it.
  for (let i = lowers.length - 1; i >= 0; i--)
    buildLayer(
      lowers[i] ?? '',
      stack.lowers[i] ?? [],
      path => mergesInto(lowers.slice(i + 1), path),
      new Set(['xwhiteout']),
    )
  if (stack.upper === null) return { lowers, upper: null, work: null }
  const upper = directory('up')
  const whiteouts = new Set<Kind>(['xwhiteout', 'whiteout'])
  const entries = stack.upper.filter(entry => entry.kind !== 'xwhiteout')
  buildLayer(upper, entries, path => mergesInto(lowers, path), whiteouts)
  return { lowers, upper, work: directory('wk') }
}

/**
 * The owner of a directory of a layer can replace an object that the union, or the kernel, has
 * already seen: by a symlink to a file of another user, a FIFO, or an object of another type. No
 * operation may then read or change anything outside of the layers, change a lower layer, or block.
 */

import * as fs from 'node:fs'
import * as fc from 'fast-check'
import t, { type Test } from 'tap'

import {
  Attr,
  Entry,
  Opened,
  Pending,
  SetAttr,
  SetAttrValid as V,
  type Caller,
  type NodeId,
} from '../../../src/overlay/ops.js'
import { defaultUnionOptions } from '../../../src/config/defaults.js'
import { features } from '../../../src/sys/features.js'
import {
  build,
  dir,
  fifo,
  file,
  removeTree,
  scratch,
  socket,
  symlink,
  unionDirectories,
  type Layer,
  type Spec,
} from '../../helpers/layers.js'
import * as sys from '../../helpers/syscalls.js'
import { readTree } from '../../helpers/tree.js'
import { resultOf, skipUnions, stateOf, type State } from './support.js'

const { O } = sys
const SECRET = 'what nobody may see'
const ATTRIBUTE = 'user.secret'

/** The tree that a symlink leads to. */
const outside = (): Layer => ({
  './': dir({ mode: 0o700 }),
  file: file(SECRET, { mode: 0o600, xattrs: { [ATTRIBUTE]: SECRET, 'trusted.secret': SECRET } }),
  'dir/': dir({ mode: 0o700, xattrs: { [ATTRIBUTE]: SECRET } }),
  'dir/child': file(SECRET, { mode: 0o600, xattrs: { [ATTRIBUTE]: SECRET } }),
  'dir/sub/f': SECRET,
})

/** The objects before the replacement, with everything that the operations need. */
const ORIGINALS: Record<string, (at: string) => Layer> = {
  file: at => ({ [at]: file('text', { mode: 0o644, xattrs: { 'user.a': 'b' } }) }),
  dir: at => ({ [`${at}/`]: dir(), [`${at}/child`]: 'child', [`${at}/sub/f`]: 'f' }),
  symlink: at => ({ [at]: symlink('nowhere') }),
  fifo: at => ({ [at]: fifo() }),
  socket: at => ({ [at]: socket() }),
}

const replacementsIn = (victims: string): Record<string, Spec | null> => ({
  'symlink to a file': symlink(`${victims}/file`),
  'symlink to a directory': symlink(`${victims}/dir`),
  'relative symlink': symlink('../../victims/file'),
  nothing: null,
  file: file('another'),
  dir: dir(),
  fifo: fifo(),
  socket: socket(),
})

const caller: Caller = { uid: 0, gid: 0, pid: process.pid, umask: 0 }

interface On {
  ops: State['ops']
  parent: NodeId
  node: NodeId
  child: NodeId
  /** All data and names that were read. */
  seen: string[]
}

const set = (change: Partial<SetAttr>) => (on: On) =>
  on.ops.setattr(on.node, Object.assign(new SetAttr(), change), new Attr())

/** Opens the node, runs `use` with the handle, and releases the handle. */
const opened =
  (flags: number, use: (on: On, fh: number) => number = () => 0) =>
  (on: On): number => {
    const out = new Opened()
    const result = on.ops.open(on.node, flags, true, out)
    if (result < 0) return result
    try {
      return use(on, out.fh)
    } finally {
      on.ops.release(out.fh)
    }
  }

const read = (on: On, fh: number): number => {
  const buf = Buffer.alloc(256)
  const got = on.ops.read(fh, buf, 0, buf.length, 0)
  if (got > 0) on.seen.push(buf.latin1Slice(0, got))
  return got
}

const xattr = (on: On, name: string): number => {
  const buf = Buffer.alloc(256)
  const got = on.ops.getxattr(on.node, name, buf, 0, buf.length)
  if (got > 0) on.seen.push(buf.latin1Slice(0, got))
  return got
}

/** Flags that a file system may support: FS_NOATIME_FL, FS_APPEND_FL. */
const [NOATIME, APPEND] = [0x80, 0x20]

const OPERATIONS: Record<string, (on: On) => number> = {
  getattr: on => on.ops.getattr(on.node, 0, new Attr()),
  'truncate to nothing': set({ valid: V.SIZE, size: 0 }),
  'truncate to less': set({ valid: V.SIZE, size: 2 }),
  'truncate to the size of the other': set({ valid: V.SIZE, size: SECRET.length }),
  'truncate to more': set({ valid: V.SIZE, size: 5000 }),
  chmod: set({ valid: V.MODE, mode: 0o4777 }),
  chown: set({ valid: V.UID | V.GID, uid: 1000, gid: 1000 }),
  'chown without either': set({ valid: V.CTIME }),
  utimens: set({ valid: V.ATIME | V.MTIME, atimeSec: 5, mtimeSec: 6 }),
  touch: set({ valid: V.ATIME | V.MTIME | V.ATIME_NOW | V.MTIME_NOW }),
  'all at once': set({ valid: V.MODE | V.UID | V.SIZE | V.MTIME, mode: 0o777, uid: 1, size: 1 }),
  'getxattr of the other': on => xattr(on, ATTRIBUTE),
  'getxattr, trusted': on => xattr(on, 'trusted.secret'),
  listxattr: on => {
    const buf = Buffer.alloc(4096)
    const got = on.ops.listxattr(on.node, buf, 0, buf.length, true)
    if (got > 0) on.seen.push(buf.latin1Slice(0, got))
    return got
  },
  setxattr: on => on.ops.setxattr(on.node, 'user.a', Buffer.from('c'), 0, false),
  'setxattr, trusted': on => on.ops.setxattr(on.node, 'trusted.a', Buffer.from('c'), 0, false),
  'setxattr of the other': on => on.ops.setxattr(on.node, ATTRIBUTE, Buffer.from('c'), 0, false),
  removexattr: on => on.ops.removexattr(on.node, ATTRIBUTE),
  'removexattr, own': on => on.ops.removexattr(on.node, 'user.a'),
  'open and read': opened(O.RDONLY, read),
  'open and write': opened(O.RDWR, (on, fh) =>
    on.ops.write(fh, Buffer.from('written'), 0, 7, 0, true, false),
  ),
  'open with O_TRUNC': opened(O.WRONLY | O.TRUNC),
  fallocate: opened(O.RDWR, (on, fh) => on.ops.fallocate(fh, 0, 0, 8192)),
  'seek for data': opened(O.RDONLY, (on, fh) => Number(on.ops.lseek(fh, 0, sys.SEEK.DATA))),
  getFlags: on => on.ops.getFlags(on.node),
  setFlags: on => on.ops.setFlags(on.node, NOATIME),
  'setFlags, virtual': on => on.ops.setFlags(on.node, APPEND),
  readlink: on => on.ops.readlink(on.node, Buffer.alloc(4096), 0),
  link: on => on.ops.link(on.node, on.parent, 'linked', new Entry()),
  rename: on => on.ops.rename(on.parent, 'x', on.parent, 'moved', 0),
  'rename over another': on => on.ops.rename(on.parent, 'x', on.parent, 'other', 0),
  'rename of another over it': on => on.ops.rename(on.parent, 'other', on.parent, 'x', 0),
  exchange: on => on.ops.rename(on.parent, 'x', on.parent, 'other', sys.RENAME.EXCHANGE),
  unlink: on => on.ops.unlink(on.parent, 'x'),
  rmdir: on => on.ops.rmdir(on.parent, 'x'),
  'lookup again': on => on.ops.lookup(on.parent, 'x', new Entry()),
  'lookup below': on => on.ops.lookup(on.node, 'f', new Entry()),
  'lookup of a child': on => on.ops.lookup(on.node, 'child', new Entry()),
  readdir: on => on.ops.readdir(on.node, 0, { add: name => on.seen.push(name) > 0 }),
  'create in it': on =>
    on.ops.create(caller, on.node, 'new', 0o666, O.RDWR, new Entry(), new Opened()),
  'create over a child': on =>
    on.ops.create(caller, on.node, 'child', 0o666, O.RDWR | O.TRUNC, new Entry(), new Opened()),
  'tmpfile in it': on => on.ops.tmpfile(caller, on.node, 0o666, O.RDWR, new Entry(), new Opened()),
  'mkdir in it': on => on.ops.mkdir(caller, on.node, 'new', 0o777, new Entry()),
  'mknod in it': on => on.ops.mknod(caller, on.node, 'new', sys.S.IFIFO, 0, 0, new Entry()),
  'symlink in it': on => on.ops.symlink(caller, on.node, 'new', 'target', new Entry()),
  'link into it': on => on.ops.link(on.child, on.node, 'new', new Entry()),
  'unlink in it': on => on.ops.unlink(on.node, 'child'),
  'rmdir in it': on => on.ops.rmdir(on.node, 'sub'),
  'rename out of it': on => on.ops.rename(on.node, 'child', on.parent, 'moved', 0),
  'rename into it': on => on.ops.rename(on.parent, 'other', on.node, 'moved', 0),
  fsyncdir: on => on.ops.fsyncdir(on.node, false),
}

/** The state of trees that must not change, without access times of directories. */
const snapshot = (...tops: string[]): string =>
  JSON.stringify(
    tops.map(top =>
      [...readTree(top, true).nodes.values()].map(({ stat: { atime, ...stat }, ...node }) => ({
        ...node,
        stat,
        atime: (stat.mode & sys.S.IFMT) === sys.S.IFREG ? atime : 0n,
      })),
    ),
    (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value),
    1,
  )

const run = async (ops: State['ops'], call: () => number): Promise<number> => {
  for (;;) {
    let pending: Pending
    try {
      return call()
    } catch (error) {
      if (!(error instanceof Pending)) throw error
      pending = error
    }
    const result = await resultOf(pending, () => ops.runCallbacks())
    if (pending.answer || result < 0) return result
  }
}

interface Case {
  original: string
  replacement: string
  operation: string
  /** The layer that has the object: upper, lower, or both. */
  where: 'upper' | 'lower' | 'both'
  /** All cached directory descriptors are closed. */
  closed: boolean
  /** As on kernels before 6.6 and 6.13. */
  old: boolean
  metacopy: boolean
}

const attack = async (t: Test, given: Case): Promise<void> => {
  const top = scratch(t)
  fs.mkdirSync(`${top}/victims`)
  build(`${top}/victims`, outside())
  const make = ORIGINALS[given.original]
  if (make === undefined) throw new Error(given.original)
  const object: Layer = { ...make('d/x') }
  const others: Layer = { 'd/other': 'other' }
  const layers: { upper: Layer; lower: Layer[] } = {
    upper: given.where === 'lower' ? others : { ...others, ...object },
    lower: [given.where === 'upper' ? { 'd/': dir() } : { 'd/': dir(), ...object }, {}],
  }
  const data = given.metacopy && given.original === 'file'
  if (data) {
    const meta = file('', { size: 4, xattrs: { 'trusted.overlay.metacopy': '' } })
    layers.lower = [{ 'd/x': meta }, { ...object }]
    layers.upper = others
  }
  const directories = unionDirectories(t, layers, top)
  const options = {
    ...defaultUnionOptions,
    ...directories,
    fsync: false,
    redirectDir: 'on' as const,
  }
  const { u, ops, close } = stateOf(t, options)
  const look = (parent: NodeId, name: string): NodeId => {
    const out = new Entry()
    return ops.lookup(parent, name, out) < 0 ? 0 : out.nodeId
  }
  const parent = look(1, 'd')
  const node = look(parent, 'x')
  const child = look(node, 'child') || look(parent, 'other')

  const replaced = data
    ? [`${directories.lower[1]}/d/x`]
    : [
        ...(given.where === 'lower' ? [] : [`${directories.upper}/d/x`]),
        ...(given.where === 'upper' ? [] : [`${directories.lower[0]}/d/x`]),
      ]
  const instead = replacementsIn(`${top}/victims`)[given.replacement]
  for (const path of replaced) {
    removeTree(path)
    if (instead !== null && instead !== undefined) {
      fs.mkdirSync(`${top}/new`)
      build(`${top}/new`, { x: instead })
      fs.renameSync(`${top}/new/x`, path)
      fs.rmdirSync(`${top}/new`)
    }
  }
  if (given.closed) u.fds.closeAll()
  const before = snapshot(`${top}/victims`, ...directories.lower)
  const on: On = { ops, parent, node, child, seen: [] }
  const act = OPERATIONS[given.operation]
  if (act === undefined) throw new Error(given.operation)
  const { xattrat, fchmodat2 } = features
  if (given.old) Object.assign(features, { xattrat: false, fchmodat2: false })
  try {
    await run(ops, () => act(on))
  } finally {
    Object.assign(features, { xattrat, fchmodat2 })
    close()
  }
  const after = snapshot(`${top}/victims`, ...directories.lower)
  if (after !== before) throw new Error('something changed that is not the upper layer')
  const leak = on.seen.find(text => text.includes(SECRET) || text.includes('secret'))
  if (leak !== undefined) throw new Error(`it has read ${leak}`)
  removeTree(top)
}

const everything = fc.record<Case>({
  original: fc.constantFrom(...Object.keys(ORIGINALS)),
  replacement: fc.constantFrom(...Object.keys(replacementsIn(''))),
  operation: fc.constantFrom(...Object.keys(OPERATIONS)),
  where: fc.constantFrom('upper' as const, 'lower' as const, 'both' as const),
  closed: fc.boolean(),
  old: fc.boolean(),
  metacopy: fc.boolean(),
})

t.test('whatever replaces an object, no call leaves the layers', { skip: skipUnions }, async t => {
  await fc.assert(
    fc.asyncProperty(everything, given => attack(t, given)),
    { numRuns: 400 },
  )
})

t.test('each operation, a symlink to a file instead of a file', { skip: skipUnions }, async t => {
  for (const operation of Object.keys(OPERATIONS))
    for (const where of ['upper', 'lower'] as const)
      await t.resolves(
        attack(t, {
          original: 'file',
          replacement: 'symlink to a file',
          operation,
          where,
          closed: false,
          old: false,
          metacopy: false,
        }),
        `${operation}, ${where}`,
      )
})

t.test(
  'each operation, a symlink to a directory instead of a directory',
  { skip: skipUnions },
  async t => {
    for (const operation of Object.keys(OPERATIONS))
      for (const closed of [false, true])
        await t.resolves(
          attack(t, {
            original: 'dir',
            replacement: 'symlink to a directory',
            operation,
            where: 'both',
            closed,
            old: true,
            metacopy: false,
          }),
          `${operation}, ${closed ? 'closed' : 'open'}`,
        )
  },
)

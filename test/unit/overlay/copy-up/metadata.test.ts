import t, { type Test } from 'tap'

import { Copy } from '../../../../src/overlay/copy-up/copy.js'
import { copyMetadata, saveProtect } from '../../../../src/overlay/copy-up/metadata.js'
import { Protect } from '../../../../src/overlay/inode/node.js'
import { Entry, Opened } from '../../../../src/overlay/ops.js'
import { indexName, encodeOrigin } from '../../../../src/overlay/layer/origin.js'
import { E } from '../../../../src/sys/errno.js'
import { Stat } from '../../../../src/sys/stat.js'
import { fstatx, statxat } from '../../../../src/sys/at.js'
import {
  acl,
  dir,
  file,
  link,
  symlink,
  unionDirectories,
  type Layer,
} from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { xattrsOf } from '../../../helpers/tree.js'
import { optionsOf } from '../../../helpers/union.js'
import { skipUnions, stateOf, type State } from '../support.js'

const traits = {
  mode: 0o6751,
  uid: 1234,
  gid: 4_000_000_000,
  atime: { sec: -5, nsec: 999_999_999 },
  mtime: { sec: 5_000_000_000, nsec: 1 },
}
/** FS_NOATIME_FL and FS_NODUMP_FL */
const FLAGS = 0xc0

const LOWER: Layer = {
  f: file('text', {
    ...traits,
    flags: FLAGS,
    xattrs: {
      'user.empty': '',
      'user.u': '\0\xff',
      'trusted.overlay.origin': 'not to be copied',
      'trusted.overlay.overlay.opaque': 'escaped',
      'system.posix_acl_access': acl('u::rwx,u:7:rw-,g::r-x,m::rwx,o::--x'),
    },
  }),
  'd/': dir({
    ...traits,
    mode: 0o3700,
    flags: FLAGS,
    xattrs: { 'system.posix_acl_default': acl('u::rwx,g::---,o::---') },
  }),
  link: symlink('\xff', { ...traits, xattrs: { 'trusted.t': 't' } }),
  two: 'two',
  again: link('two'),
}

const origin = (attr: string): boolean => attr.startsWith('trusted.overlay.origin=')

/** Copies the metadata of a lower object to an empty upper one; through a descriptor if `open`. */
const copy = (t: Test, { u, find }: State, name: string, open = false): number => {
  const node = find(name)
  const upper = u.upper!.fd
  const lower = u.lowers[0]!
  const st = new Stat()
  statxat(lower.fd, name, st)
  const type = st.mode & sys.S.IFMT
  if (type === sys.S.IFDIR) sys.mkdirat(upper, name, 0o700)
  else if (type === sys.S.IFLNK) sys.symlinkat('\xff', upper, name)
  else sys.mknodat(upper, name, type | 0o600, 0, 0)
  const c = new Copy(node, lower, st, new Stat())
  c.srcFd = lower.fd
  c.srcName = name
  c.dstFd = upper
  c.dstName = name
  if (!open) return copyMetadata(u, c)
  const fd = sys.openat(upper, name, sys.O.RDWR)
  c.dstFd = fd
  c.dstName = ''
  const result = copyMetadata(u, c)
  t.equal(sys.close(fd), 0)
  return result
}

t.test('a copy has all attributes of its source, and its origin', { skip: skipUnions }, async t => {
  for (const open of [false, true]) {
    const where = unionDirectories(t, { lower: [LOWER] })
    const state = stateOf(t, optionsOf(where, { volatile: true }))
    const { u } = state
    const top = u.lowers[0]!
    for (const name of open ? ['f'] : ['f', 'd', 'link']) {
      t.equal(copy(t, state, name, open), 0, name)
      const [from, to] = [top.fd, u.upper!.fd].map(fd => {
        const { mode, uid, gid, atime, mtime } = sys.lstat(fd, name) as sys.Stat
        return { mode, uid, gid, atime, mtime }
      })
      t.strictSame(to, from, name)
      const [theirs = [], ours = []] = [where.lower[0], where.upper].map(path =>
        xattrsOf({ path: `${path}/${name}`, follow: false }).toSorted(),
      )
      t.strictSame(
        ours.filter(attr => !origin(attr)),
        theirs.filter(attr => !origin(attr)),
      )
      const want = encodeOrigin(top, top.fd, name)
      if (Buffer.isBuffer(want))
        t.strictSame(ours.filter(origin), [`trusted.overlay.origin=${indexName(want)}`])
    }
    const fd = sys.open(`${where.upper}/${open ? 'f' : 'd'}`, sys.O.RDONLY)
    t.equal(sys.getFlags(fd) & 0xc0, 0x80, 'of the inode flags those that overlayfs copies')
    sys.close(fd)
  }
})

t.test(
  'without an index, a file with several links gets no origin',
  { skip: skipUnions },
  async t => {
    for (const index of [true, false]) {
      const where = unionDirectories(t, { lower: [LOWER] })
      const state = stateOf(t, optionsOf(where, { index, volatile: true }))
      t.equal(copy(t, state, 'two'), 0)
      const has = typeof sys.getxattr(
        { path: `${where.upper}/two`, follow: false },
        'trusted.overlay.origin',
      )
      t.equal(has !== 'number', index && state.u.lowers[0]!.handles)
    }
  },
)

t.test('virtual inode flags', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [LOWER], upper: { p: 'p' } })
  const { u } = stateOf(t, optionsOf(where, { volatile: true }))
  const fd = u.upper!.fd
  const value = (): string | number | null => u.xattrs.value(fd, 'p', 'protattr')
  for (const [bits, text] of [
    [Protect.APPEND | Protect.IMMUTABLE, 'ai'],
    [Protect.IMMUTABLE, 'i'],
    [Protect.APPEND, 'a'],
    [0, null],
    [0, null],
  ] as const) {
    t.equal(saveProtect(u, fd, 'p', bits), 0)
    t.equal(value(), text)
  }
  t.equal(saveProtect(u, fd, 'none', 0), -E.ENOENT)
})

t.test('an error ends the copy', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const { u, find } = stateOf(t, optionsOf(where, { volatile: true }))
  const lower = u.lowers[0]!
  const st = new Stat()
  fstatx(lower.fd, st)
  const to = (name: string, src: string): number => {
    const c = new Copy(find('d'), lower, st, new Stat())
    c.srcFd = lower.fd
    c.srcName = src
    c.dstFd = u.upper!.fd
    c.dstName = name
    return copyMetadata(u, c)
  }
  t.equal(to('none', 'd'), -E.ENOENT)
  sys.mkdirat(u.upper!.fd, 'd', 0o700)
  t.equal(to('d', 'none'), -E.ENOENT)
})

t.test('a result cached for one file is not used for another', { skip: skipUnions }, async t => {
  const some = file('text', { xattrs: { 'user.u': 'x' } })
  const where = unionDirectories(t, { lower: [{ bare: 'text', some, read: some, last: 'text' }] })
  const { ops, find } = stateOf(t, optionsOf(where, { volatile: true }))
  const opened = new Opened()
  const write = (name: string, flags: number): void => {
    t.equal(ops.open(find(name).id, flags, false, opened), 0)
    ops.read(opened.fh, Buffer.alloc(1), 0, 1, 0)
    ops.release(opened.fh)
  }
  const attributes = (name: string): string[] =>
    xattrsOf({ path: `${where.upper}/${name}`, follow: false }).filter(attr => !origin(attr))
  for (const name of ['bare', 'some', 'read', 'last']) t.equal(ops.lookup(1, name, new Entry()), 0)
  write('read', sys.O.RDONLY)
  write('bare', sys.O.RDONLY)
  for (const name of ['read', 'some', 'bare', 'last']) write(name, sys.O.WRONLY)
  t.strictSame(attributes('some'), ['user.u=78'])
  t.strictSame(attributes('read'), ['user.u=78'])
  t.strictSame([...attributes('bare'), ...attributes('last')], [])
})

import * as fs from 'node:fs'

import t from 'tap'

import {
  defaultAcl,
  getxattr,
  listxattr,
  removexattr,
  setxattr,
} from '../../../../src/overlay/file/xattr.js'
import { E } from '../../../../src/sys/errno.js'
import {
  acl,
  dir,
  file,
  withOverlayXattrs,
  unionDirectories,
  type Layer,
} from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { optionsOf, readOnlyOptions } from '../../../helpers/union.js'
import { skipUnions, stateOf, type State } from '../support.js'

const DEFAULT = 'system.posix_acl_default'
const ACCESS = 'system.posix_acl_access'
const LOWER: Layer = {
  f: file('', { xattrs: { 'user.a': '\0\xff', 'trusted.t': 't', 'trusted.overlay.origin': 'o' } }),
  'd/': withOverlayXattrs({ opaque: 'y' }, { xattrs: { [DEFAULT]: acl('u::rwx,g::r-x,o::---') } }),
  many: file('', {
    xattrs: Object.fromEntries(
      Array.from({ length: 12 }, (_, i) => [`user.${String(i).padStart(200, 'n')}`, 'v']),
    ),
  }),
}
const WHO = { uid: 1234, gid: 5, pid: 0, umask: 0 }

const on = ({ u, find }: State, path: string) => {
  const node = find(path)
  const buf = Buffer.alloc(70_000, 0xee)
  return {
    node,
    get: (name: string, room = 1000): string | number => {
      const n = getxattr(u, node, name, buf, 5, room)
      return n < 0 || room === 0 ? n : buf.latin1Slice(5, 5 + n)
    },
    list: (trusted = true, room = 5000): string[] | number => {
      buf.fill(0xee)
      const n = listxattr(u, node, buf, 5, room, trusted)
      if (n < 0 || room === 0) return n
      t.equal(buf[5 + n], 0xee, 'not a byte more')
      return buf
        .latin1Slice(5, 5 + n)
        .split('\0')
        .slice(0, -1)
        .toSorted()
    },
    set: (name: string, value: string, flags = 0, killSgid = false): number =>
      setxattr(u, node, name, Buffer.from(value, 'latin1'), flags, killSgid),
    remove: (name: string, who = WHO): number => removexattr(u, node, name, who),
  }
}

t.test('what callers see', { skip: skipUnions }, async t => {
  const state = stateOf(t, readOnlyOptions(unionDirectories(t, { lower: [LOWER] })))
  const f = on(state, 'f')
  t.strictSame(f.list(), ['trusted.t', 'user.a'])
  t.strictSame(f.list(false), ['user.a'])
  t.equal(f.get('user.a'), '\0\xff')
  t.equal(f.get('user.a', 0), 2, 'asked for the length')
  t.equal(f.get('user.a', 1), -E.ERANGE)
  t.equal(f.get('trusted.overlay.origin'), -E.ENODATA, 'marks do not exist')
  t.equal(f.list(true, 0), 'user.a trusted.t '.length, 'the length of what is listed')
  t.equal(f.list(true, 16), -E.ERANGE)
  const many = on(state, 'many')
  t.equal((many.list() as string[]).length, 12)
  t.equal(many.list(true, 1000), -E.ERANGE)
  t.equal(f.set('user.b', ''), -E.EROFS)
  t.equal(f.remove('user.none'), -E.EROFS)
})

t.test('what callers write', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const state = stateOf(t, optionsOf(where, { volatile: true }))
  const f = on(state, 'f')
  t.equal(f.remove('user.none'), -E.ENODATA)
  t.notOk(f.node.upper, 'for an attribute that is not there nothing is copied up')
  f.node.protect = 1
  t.equal(f.set('user.b', ''), -E.EPERM)
  t.equal(f.remove('user.a'), -E.EPERM)
  f.node.protect = 0
  t.notOk(f.node.upper)
  t.equal(f.set('trusted.overlay.opaque', 'mine'), 0)
  t.equal(f.get('trusted.overlay.opaque'), 'mine')
  const real = { path: `${where.upper}/f`, follow: false }
  t.same(sys.getxattr(real, 'trusted.overlay.overlay.opaque'), Buffer.from('mine'))
  t.type(sys.getxattr(real, 'trusted.overlay.opaque'), 'number')
  t.strictSame(f.list(), ['trusted.overlay.opaque', 'trusted.t', 'user.a'])
  t.equal(f.set('user.a', 'x', 1), -E.EEXIST, 'XATTR_CREATE')
  t.equal(f.set('user.c', 'x', 2), -E.ENODATA, 'XATTR_REPLACE')
  t.equal(f.remove('trusted.overlay.opaque'), 0)
  t.equal(f.remove('user.a'), 0)
  t.strictSame(f.list(), ['trusted.t'])
})

t.test('the default ACL is cached until it changes', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const state = stateOf(t, optionsOf(where, { volatile: true }))
  const d = on(state, 'd')
  const { u } = state
  const known = defaultAcl(u, d.node)
  t.same(known, Buffer.from(acl('u::rwx,g::r-x,o::---'), 'latin1'))
  t.equal(defaultAcl(u, d.node), known)
  const next = acl('u::rwx,g::---,o::---')
  t.equal(d.set(DEFAULT, next), 0)
  t.same(defaultAcl(u, d.node), Buffer.from(next, 'latin1'))
  t.equal(d.remove(DEFAULT), 0)
  t.equal(defaultAcl(u, d.node), null)
})

t.test('a caller outside the group drops set-group-id by setting an ACL', async t => {
  if (skipUnions !== false) return t.comment(skipUnions)
  const upper = { f: file('', { mode: 0o2755, gid: 77 }), 'd/': dir({ mode: 0o2755, gid: 77 }) }
  const where = unionDirectories(t, { lower: [{}], upper })
  const state = stateOf(t, optionsOf(where, { volatile: true }))
  const mode = (name: string): number => fs.statSync(`${where.upper}/${name}`).mode & 0o7777
  const value = acl('u::rwx,u:9:r-x,g::r-x,m::r-x,o::r-x')
  for (const name of ['f', 'd']) {
    const it = on(state, name)
    t.equal(it.set(ACCESS, value), 0)
    t.equal(mode(name), 0o2755, 'unless the kernel says so')
    t.equal(it.remove(ACCESS, { ...WHO, gid: 77 }), 0)
    t.equal(mode(name), 0o2755, 'a member')
    t.equal(it.set(ACCESS, value), 0)
    t.equal(it.remove(ACCESS), 0)
    t.equal(mode(name), 0o755)
    fs.chmodSync(`${where.upper}/${name}`, 0o2755)
    t.equal(it.set(ACCESS, value, 0, true), 0)
    t.equal(mode(name), 0o755)
  }
  fs.chmodSync(`${where.upper}/d`, 0o2755)
  t.equal(on(state, 'd').set(DEFAULT, value, 0, true), 0)
  t.equal(mode('d'), 0o2755, 'a default ACL says nothing of the mode')
})

import { renameSync } from 'node:fs'

import t from 'tap'

import {
  applyOverride,
  formatOverride,
  parseOverride,
} from '../../../../src/overlay/layer/stat-override.js'
import { statxat } from '../../../../src/sys/at.js'
import { E } from '../../../../src/sys/errno.js'
import { Stat } from '../../../../src/sys/stat.js'
import type { CallerIds } from '../../../helpers/fs-calls.js'
import {
  acl,
  device,
  dir,
  fifo,
  file,
  link,
  PAST,
  socket,
  symlink,
  unionDirectories,
  type Layer,
  type Spec,
} from '../../../helpers/layers.js'
import { isRoot } from '../../../helpers/mount.js'
import { clearVolatile } from '../../../helpers/parity.js'
import * as sys from '../../../helpers/syscalls.js'
import { diffTrees, readTree, type Difference } from '../../../helpers/tree.js'
import { open, optionsOf, type UnionFs } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

const STAT = 'user.containers.override_stat'
const { S } = sys

t.test('the format of containers/storage', async t => {
  const cases: [string, number, number, number, number, number][] = [
    ['0:0:0755:dir', 0, 0, S.IFDIR | 0o755, 0, 0],
    ['5:6:4755:file', 5, 6, S.IFREG | 0o4755, 0, 0],
    ['5:6:0000:file', 5, 6, S.IFREG, 0, 0],
    ['0:0:0777:symlink', 0, 0, S.IFLNK | 0o777, 0, 0],
    ['1:2:0600:pipe', 1, 2, S.IFIFO | 0o600, 0, 0],
    ['1:2:1666:socket', 1, 2, S.IFSOCK | 0o1666, 0, 0],
    ['0:6:0660:block-8-17', 0, 6, S.IFBLK | 0o660, 8, 17],
    ['4294967294:5:0666:char-1-1048575', 4294967294, 5, S.IFCHR | 0o666, 1, 1048575],
  ]
  for (const [text, uid, gid, full, major, minor] of cases) {
    t.equal(formatOverride(uid, gid, full, major, minor), text)
    const [mode, type] = [full & 0o7777, full & S.IFMT]
    t.strictSame(parseOverride(text), { uid, gid, mode, type, major, minor }, text)
  }
  const plain = { uid: 0, gid: 5, mode: 0o4755, type: 0, major: 0, minor: 0 }
  // Without a type; as fuse-overlayfs writes it; as other programs do, with the type in the mode.
  for (const text of ['0:5:4755', '0:5:104755', '0:5:0104755'])
    t.strictSame(parseOverride(text), plain, text)
  t.match(parseOverride('0:0:644:char--1-3'), { type: S.IFCHR, major: 1, minor: 3 })
  const wrong = ['', '0:0', '0:0:', 'a:0:644', '-1:0:644', '0:0:8', '0:0:644:', '0:0:644:x']
  for (const text of [...wrong, '0:0:644:block', '0:0:644:char-1', '4294967295:0:644:file'])
    t.equal(parseOverride(text), null, text)
})

const skip = !isRoot && 'needs root, to compare with'

const LOWER: Layer = {
  'd/f': file('file', { uid: 5, gid: 6, mode: 0o4755, xattrs: { 'user.x': 'y' } }),
  'd/s': symlink('x', { uid: 5, gid: 7 }),
  'd/p': fifo({ uid: 3, gid: 8, mode: 0o640 }),
  'd/sock': socket({ uid: 9 }),
  'd/null': device('char', 1, 3, { mode: 0o666, uid: 4 }),
  'd/disk': device('block', 8, 1, { mode: 0o660, gid: 6 }),
  'd/none': file('none', { mode: 0 }),
  'd/h1': file('h', { uid: 7 }),
  'd/h2': link('d/h1'),
  'd/': dir({ uid: 3, gid: 3, mode: 0o2775 }),
  'acl/': dir({
    xattrs: {
      'system.posix_acl_default': acl('u::rwx,u:5:rwx,g::r-x,g:9:r-x,m::rwx,o::---'),
    },
  }),
  'acl/f': file('x', {
    uid: 4,
    xattrs: { 'system.posix_acl_access': acl('u::r--,u:2000:r--,g::r--,g:4:rw-,m::rw-,o::---') },
  }),
  cap: file('', { xattrs: { 'security.capability': '\x01\0\0\x02\0\x04\0\0' + '\0'.repeat(12) } }),
}

const random = (seed: number) => (below: number) => {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
  return Math.floor((seed / 2 ** 32) * below)
}

const DIRECTORIES = ['', 'd', 'acl', 'acl/new0', 'd/new1']
const NAMES = ['f', 's', 'p', 'sock', 'null', 'disk', 'none', 'h1', 'h2', 'cap', 'new0', 'new1']

const drive = async (fs: UnionFs, seed: number): Promise<unknown[]> => {
  const pick = random(seed)
  const of = <T>(list: readonly T[]): T => list[pick(list.length)] as T
  const results: unknown[] = []
  for (let i = 0; i < 150; i++) {
    const directory = of(DIRECTORIES)
    const path = (name: string): string => (directory === '' ? name : `${directory}/${name}`)
    const name = path(of(NAMES))
    const caller: CallerIds = {
      uid: of([0, 1, 5, 70_000]),
      gid: of([0, 3, 6]),
      umask: of([0, 0o027]),
    }
    const mode = of([0o644, 0o2755, 0o600, 0o6777, 0o040])
    const special = of([S.IFIFO, S.IFSOCK, S.IFCHR, S.IFBLK, S.IFREG])
    const named = acl(`u::rw-,u:${caller.uid}:r-x,g::r-x,g:9:rwx,m::${of(['r-x', 'rw-'])},o::---`)
    const calls = [
      () => fs.create(name, mode & 0o777, caller),
      () => fs.mkdir(name, mode & 0o777, caller),
      () => fs.mknod(name, special | (mode & 0o777), 5, 6, caller),
      () => fs.symlink('target', name, caller),
      () => fs.chown(name, caller.uid, caller.gid),
      () => fs.chown(name, -1, caller.gid),
      () => fs.chmod(name, mode),
      () => fs.unlink(name),
      () => fs.rename(name, path('new2')),
      () => fs.link(name, path('new2')),
      () => fs.setxattr(name, 'system.posix_acl_access', named),
      () => fs.getxattr(name, 'system.posix_acl_access'),
      () => fs.removexattr(name, 'system.posix_acl_access'),
      () => fs.write(name, 'text'),
      () => fs.truncate(name, 2),
      () => fs.removexattr(name, 'security.capability'),
    ]
    results.push(await (calls[pick(calls.length)] as () => unknown)())
  }
  return results
}

/** The test reads the layers themselves. A listing of regular files shows no other types. */
const natural = (d: Difference): boolean => d.field === 'atime' || d.field === 'listed type'

t.test('the same calls, with owners in the inode and in an attribute', { skip }, async t => {
  for (const level of [1, 2] as const)
    for (const seed of [1, 2, 3, 4]) {
      const plainAt = unionDirectories(t, { lower: [LOWER] })
      const where = { ...unionDirectories(t, { lower: [] }), lower: plainAt.lower }
      const change = { volatile: true, whiteout: seed % 2 === 0 ? 'xattr' : 'auto' } as const
      const plain = open(t, optionsOf(plainAt, change))
      const options = optionsOf(where, { ...change, xattrPermissions: level })
      let fs = open(t, options)
      const expected = await drive(plain, seed)
      const told = `level ${level}, seed ${seed}`
      t.strictSame(await drive(fs, seed), expected, `${told}: results`)
      const rules = { now: BigInt(Date.now() - 60_000) * 1_000_000n }
      const wanted = await plain.tree()
      const differences = async (of: UnionFs): Promise<Difference[]> =>
        diffTrees(wanted, await of.tree(), rules).filter(d => !natural(d))
      t.strictSame(await differences(fs), [], `${told}: as it is shown`)
      fs.close()

      for (const node of readTree(where.upper).nodes.values()) {
        const type = node.stat.mode & S.IFMT
        if (type === S.IFCHR && node.stat.rdev === 0) continue // a whiteout
        if (type !== S.IFLNK) t.match(node.stat, { uid: 0, gid: 0 }, `${node.path} on disk`)
        if (level === 2)
          t.notOk(
            [S.IFIFO, S.IFSOCK, S.IFBLK, S.IFCHR].some(is => is === type),
            `${node.path}: type`,
          )
        t.equal(node.stat.mode & 0o6000, 0)
      }
      clearVolatile(where)
      fs = open(t, options)
      t.strictSame(await differences(fs), [], `${told}: opened again`)
      fs.close()
      plain.close()
    }
})

t.test('attributes that only the union may write', { skip }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const fs = open(t, optionsOf(where, { volatile: true, xattrPermissions: 2 }))
  const names = [
    STAT,
    'user.containers.override_security.capability',
    'user.fuseoverlayfs.override_stat',
    'security.fuseoverlayfs.override_stat',
  ]
  t.equal(await fs.chown('d/f', 1, 2), 0)
  for (const path of ['d/f', 'd', 'cap', '']) {
    for (const name of names) {
      t.equal(await fs.getxattr(path, name), -E.ENODATA, `${path} ${name}`)
      t.equal(await fs.setxattr(path, name, '0:0:4755:file'), -E.EPERM)
      t.equal(await fs.removexattr(path, name), -E.ENODATA)
    }
    const list = await fs.listxattr(path)
    t.notOk(JSON.stringify(list).includes('override'), `${path}: ${JSON.stringify(list)}`)
  }
  t.equal(await fs.setxattr('d/f', 'security.capability', 'x'), 0)
  const raw = { path: `${where.upper}/d/f`, follow: false }
  t.same(sys.getxattr(raw, 'user.containers.override_security.capability'), Buffer.from('x'))
  t.same(sys.getxattr(raw, STAT), Buffer.from('1:2:0755:file'))
  t.match(await fs.listxattr('d/f'), ['security.capability', 'user.x'].toSorted())
  t.equal(await fs.write('d/f', 'data'), 4)
  t.equal(await fs.getxattr('d/f', 'security.capability'), -E.ENODATA, 'a write takes it')
})

t.test('the layers with stat overrides', { skip }, async t => {
  const traits = { xattrs: { [STAT]: '7:8:4711:file' } }
  const layers = (root: Record<string, string>): Layer => ({
    './': dir({ xattrs: root }),
    f: file('', traits),
    null: file('', { xattrs: { [STAT]: '0:0:0666:char-1-3' } }),
    wrong: file('', { xattrs: { [STAT]: 'nonsense' } }),
    'd/': dir({ xattrs: { [STAT]: '1:1:1777:file' } }),
  })
  const marked = unionDirectories(t, { lower: [layers({ [STAT]: '3:4:0711:dir' })] })
  const fs = open(t, optionsOf(marked, { volatile: true, xattrPermissions: 2 }))
  t.match(await fs.stat('f'), { uid: 7, gid: 8, mode: S.IFREG | 0o4711 })
  t.match(await fs.stat('null'), { mode: S.IFCHR | 0o666, rdev: 0x100003 })
  t.match(await fs.stat('d'), { mode: S.IFDIR | 0o1777 }, 'a directory stays one')
  t.match(await fs.stat('wrong'), -E.EINVAL)
  t.match(await fs.stat(''), { uid: 3, gid: 4, mode: S.IFDIR | 0o711 }, "the lower root's")
  t.same(sys.getxattr({ path: marked.upper, follow: false }, STAT), Buffer.from('3:4:0711:dir'))
  t.equal(await fs.chmod('f', 0o600), 0)
  t.same(
    sys.getxattr({ path: `${marked.upper}/f`, follow: false }, STAT),
    Buffer.from('7:8:0600:file'),
  )
  t.equal(await fs.chown('null', 5, 5), 0)
  t.same(
    sys.getxattr({ path: `${marked.upper}/null`, follow: false }, STAT),
    Buffer.from('5:5:0666:char-1-3'),
  )

  const plain = unionDirectories(t, { lower: [layers({})] })
  const other = open(t, optionsOf(plain, { volatile: true, xattrPermissions: 2 }))
  t.match(await other.stat('f'), { uid: 0, gid: 0, mode: S.IFREG | 0o644 }, 'no xattr on the root')
  t.match(await other.stat('wrong'), { uid: 0 })
  const root = sys.getxattr({ path: plain.upper, follow: false }, STAT)
  t.same(root, Buffer.from('0:0:0755:dir'))

  const off = open(
    t,
    optionsOf(unionDirectories(t, { lower: [layers({ [STAT]: '3:4:711' })] }), {}),
  )
  t.match(await off.stat('f'), { uid: 0, mode: S.IFREG | 0o644 }, 'without the option')
  t.equal(await off.getxattr('f', STAT), '7:8:4711:file')
})

const CAPABILITY = 'user.containers.override_security.capability'

t.test(
  'overrides that other users could have written do not create files of root',
  { skip },
  async t => {
    const said = (value: string, more: Partial<Spec> = {}): Spec =>
      file('', { uid: 1000, gid: 1000, ...more, xattrs: { [STAT]: value, [CAPABILITY]: 'x' } })
    const objects: Layer = {
      own: said('5:6:4755:file', { uid: 0, gid: 0 }),
      'root, set-user-id': said('0:0:4755:file'),
      'another, set-user-id': said('1001:1000:4755:file'),
      'group, set-group-id': said('1000:0:2755:file'),
      'own, set-user-id': said('1000:1000:4755:file'),
      'own, set-group-id': said('1000:1000:2755:file'),
      'own, private': said('1000:1000:0600:file', { mode: 0o755 }),
      'a device': said('1000:1000:0666:char-1-1'),
      'a device of root': said('0:0:0666:block-8-0'),
      nonsense: said('nonsense'),
      long: said('0'.repeat(500)),
      'for all to write': said('1000:1000:4755:file', { uid: 0, gid: 0, mode: 0o666 }),
      'for the group to write': said('0:0:4755:file', { uid: 0, gid: 100, mode: 0o664 }),
      'directory/': dir({ uid: 1000, gid: 1000, xattrs: { [STAT]: '0:0:0755:dir' } }),
      'own directory/': dir({ uid: 1000, gid: 1000, xattrs: { [STAT]: '1000:1000:0700:dir' } }),
      'directory for all/': dir({ mode: 0o777, xattrs: { [STAT]: '1:1:0755:dir' } }),
      'sticky/': dir({ mode: 0o1777, xattrs: { [STAT]: '1:1:0755:dir' } }),
    }
    const { IFREG, IFDIR } = S
    const shown: Record<string, [uid: number, gid: number, mode: number]> = {
      own: [5, 6, IFREG | 0o4755],
      'root, set-user-id': [1000, 1000, IFREG | 0o644],
      'another, set-user-id': [1000, 1000, IFREG | 0o644],
      'group, set-group-id': [1000, 1000, IFREG | 0o644],
      'own, set-user-id': [1000, 1000, IFREG | 0o4755],
      'own, set-group-id': [1000, 1000, IFREG | 0o755],
      'own, private': [1000, 1000, IFREG | 0o600],
      'a device': [1000, 1000, IFREG | 0o666],
      'a device of root': [1000, 1000, IFREG | 0o644],
      nonsense: [1000, 1000, IFREG | 0o644],
      long: [1000, 1000, IFREG | 0o644],
      'for all to write': [0, 0, IFREG | 0o666],
      'for the group to write': [0, 100, IFREG | 0o664],
      directory: [1000, 1000, IFDIR | 0o755],
      'own directory': [1000, 1000, IFDIR | 0o700],
      'directory for all': [0, 0, IFDIR | 0o777],
      sticky: [1, 1, IFDIR | 0o755],
    }
    const root = dir({ uid: 1000, gid: 1000, xattrs: { [STAT]: '1000:1000:0777:dir' } })
    for (const where of ['upper', 'lower'] as const) {
      const layers = {
        lower: [{ './': root }],
        [where]: where === 'upper' ? objects : [{ './': root, ...objects }],
      }
      const directories = unionDirectories(t, { upper: {}, ...layers })
      const union = open(t, optionsOf(directories, { volatile: true, xattrPermissions: 2 }))
      const look = async (told: string): Promise<void> => {
        for (const [path, [uid, gid, mode]] of Object.entries(shown)) {
          t.match(await union.stat(path), { uid, gid, mode }, `${where}, ${path}${told}`)
          if ((mode & S.IFMT) === IFDIR) continue
          const capability = path === 'own' ? 'x' : -E.ENODATA
          t.equal(await union.getxattr(path, 'security.capability'), capability, path)
          const listed = path === 'own' ? ['security.capability'] : []
          t.strictSame(await union.listxattr(path), listed, path)
        }
        t.match(await union.stat(''), { uid: 0, gid: 0 }, 'nor the root of the union')
      }
      await look('')
      // A copy belongs to the mounter.
      for (const path of Object.keys(shown)) t.equal(await union.utimens(path, PAST, PAST), 0, path)
      if (where === 'lower') await look(', copied up')
      union.close()
    }
  },
)

t.test('other users may not write to objects on disk', { skip }, async t => {
  const where = unionDirectories(t, { lower: [{ './': dir(), old: file('x', { mode: 0o666 }) }] })
  const union = open(t, optionsOf(where, { volatile: true, xattrPermissions: 2 }))
  const named = acl('u::rwx,u:5:rwx,g::rwx,m::rwx,o::rwx')
  t.equal(await union.mkdir('d', 0o777), 0)
  t.equal(await union.chmod('d', 0o1777), 0)
  t.equal(await union.create('f', 0o666), 0)
  t.equal(await union.chmod('f', 0o666), 0)
  t.equal(await union.create('g', 0o600), 0)
  t.equal(await union.chmod('g', 0o777), 0)
  t.equal(await union.mkdir('acl', 0o777), 0)
  t.equal(await union.setxattr('acl', 'system.posix_acl_default', named), 0)
  t.equal(await union.setxattr('acl', 'system.posix_acl_access', named), 0)
  t.equal(await union.create('acl/f', 0o666), 0)
  t.equal(await union.mkdir('acl/d', 0o777), 0)
  t.equal(await union.write('old', 'y'), 1)
  const modes: [string, number][] = [
    ['d', 0o1777],
    ['f', 0o666],
    ['g', 0o777],
    ['acl', 0o777],
    ['acl/f', 0o666],
    ['acl/d', 0o777],
    ['old', 0o666],
  ]
  for (const [path, mode] of modes) {
    const stat = await union.stat(path)
    t.equal(typeof stat === 'number' ? stat : stat.mode & 0o7777, mode, path)
  }
  union.close()
  for (const { path, stat } of readTree(where.upper).nodes.values())
    t.equal(stat.mode & 0o022, 0, `${path} on disk`)
  clearVolatile(where)
  const again = open(t, optionsOf(where, { volatile: true, xattrPermissions: 2 }))
  t.match(await again.getxattr('acl/d', 'system.posix_acl_access'), named, 'an ACL is shown whole')
})

const keeping = (value: string): Spec => file('', { mode: 0o600, xattrs: { [STAT]: value } })

t.test('the override of another object with the name is ignored', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    upper: { secret: keeping('5:6:0600:file'), theirs: keeping('7:7:0666:file') },
    lower: [{}],
  })
  const { u } = stateOf(t, optionsOf(where, { xattrPermissions: 2 }))
  const upper = u.upper!
  const st = new Stat()
  t.equal(statxat(upper.fd, 'secret', st), 0)
  renameSync(`${where.upper}/secret`, `${where.upper}/away`)
  renameSync(`${where.upper}/theirs`, `${where.upper}/secret`)
  t.equal(applyOverride(upper, upper.fd, 'secret', st), -E.ESTALE)
  t.strictSame([st.uid, st.mode & 0o777], [0, 0o600])
  t.equal(applyOverride(upper, upper.fd, 'gone', st), -E.ENOENT)
  t.equal(applyOverride(upper, upper.fd, 'away', st), 0)
  t.strictSame([st.uid, st.gid, st.mode & 0o777], [5, 6, 0o600])
})

import t from 'tap'

import type { IdRange, OwnerOptions } from '../../../../src/overlay/options.js'
import { checkId, checkRanges } from '../../../../src/config/ids.js'
import { makeIdmap, UNMAPPED } from '../../../../src/overlay/owner/idmap.js'
import { E } from '../../../../src/sys/errno.js'
import type { CallerIds } from '../../../helpers/fs-calls.js'
import {
  acl,
  dir,
  fifo,
  file,
  symlink,
  unionDirectories,
  type Layer,
} from '../../../helpers/layers.js'
import { isRoot } from '../../../helpers/mount.js'
import * as sys from '../../../helpers/syscalls.js'
import { diffTrees, readTree, type Tree } from '../../../helpers/tree.js'
import { open, optionsOf, type UnionFs } from '../../../helpers/union.js'

const OVERFLOW = 65534
const UIDS: IdRange[] = [
  { disk: 0, shown: 1000, length: 1 },
  { disk: 1, shown: 100_000, length: 999 },
  { disk: 70_000, shown: 1, length: 10 },
]
const GIDS: IdRange[] = [{ disk: 0, shown: 200_000, length: 60_000 }]
const MAPPING: OwnerOptions = { uids: UIDS, gids: GIDS }

/** An independent implementation of the mapping. */
const shownBy = (ranges: IdRange[], id: number): number => {
  const range = ranges.find(r => id >= r.disk && id - r.disk < r.length)
  return range === undefined ? OVERFLOW : id - range.disk + range.shown
}
const uid = (id: number): number => shownBy(UIDS, id)
const gid = (id: number): number => shownBy(GIDS, id)

t.test('ids, both ways', async t => {
  const idmap = makeIdmap(MAPPING)
  if (idmap === null) throw new Error('no idmap')
  for (const id of [0, 1, 2, 998, 999, 1000, 69_999, 70_000, 70_009, 70_010, 65534, 4294967294]) {
    const shown = idmap.uids.toShown(id)
    t.equal(shown, uid(id), `${id}`)
    t.equal(idmap.uids.toDisk(shown), shown === OVERFLOW ? UNMAPPED : id, `${id} back`)
  }
  t.equal(idmap.gids.toDisk(5), UNMAPPED)
  t.notOk(idmap.squashes)

  const squashed = makeIdmap({ ...MAPPING, squashUid: 7 })
  t.equal(squashed?.uids.toShown(5), 7)
  t.equal(squashed?.uids.map(0), 1000, 'in an ACL')
  t.equal(squashed?.uids.toDisk(1000), 0)
  t.equal(squashed?.gids.toShown(0), 200_000)
  t.equal(makeIdmap(undefined), null)
  t.equal(makeIdmap({}), null)
  t.equal(makeIdmap({ squashGid: 0 })?.gids.toShown(9), 0)
})

t.test('valid and invalid mappings', async t => {
  const max = 4294967294
  const cases: [IdRange[], RegExp | undefined][] = [
    [[], undefined],
    [UIDS, undefined],
    [[{ disk: 0, shown: max, length: 1 }], undefined],
    [[{ disk: 0, shown: max, length: 2 }], /0:4294967294:2 goes beyond the last id/],
    [[{ disk: 0, shown: 1, length: 0 }], /0:1:0 maps nothing/],
    [[{ disk: -1, shown: 1, length: 1 }], /no id/],
    [[{ disk: 0.5, shown: 1, length: 1 }], /no id/],
    [
      [
        { disk: 0, shown: 10, length: 5 },
        { disk: 4, shown: 20, length: 5 },
      ],
      /0:10:5 and 4:20:5 overlap on disk/,
    ],
    [
      [
        { disk: 10, shown: 4, length: 5 },
        { disk: 0, shown: 0, length: 5 },
      ],
      /0:0:5 and 10:4:5 overlap as shown/,
    ],
  ]
  for (const [ranges, wrong] of cases) {
    const check = (): void => checkRanges('uidmapping', 'uidmapping=…', ranges)
    if (wrong === undefined) t.doesNotThrow(check)
    else t.throws(check, { option: 'uidmapping', code: 'EINVAL', message: wrong })
  }
  for (const id of [-1, max + 1, Number.NaN, 1.5])
    t.throws(() => checkId('squash_to_uid', 'squash_to_uid=…', id), { message: /not an id/ })
})

const LOWER: Layer = {
  'd/f': file('file', { uid: 5, gid: 6, mode: 0o4755 }),
  'd/s': symlink('x', { uid: 5, gid: 7 }),
  'd/p': fifo({ uid: 70_003, gid: 8 }),
  'd/foreign': file('f', { uid: 5000, gid: 60_000 }),
  'd/': dir({ uid: 3, gid: 3, mode: 0o2775 }),
  'acl/': dir({
    xattrs: {
      'system.posix_acl_default': acl('u::rwx,u:5:rwx,g::r-x,g:9:r-x,m::rwx,o::---'),
    },
  }),
  'acl/f': file('x', {
    uid: 4,
    xattrs: { 'system.posix_acl_access': acl('u::rw-,u:2000:r--,g::r--,g:4:rw-,m::rw-,o::---') },
  }),
}

/** Maps the ids of an ACL by the independent implementation. */
const translateAcl = (hex: string): string => {
  const bytes = Buffer.from(hex, 'hex')
  for (let at = 4; at < bytes.length; at += 8) {
    const tag = bytes.readUInt16LE(at)
    const id = bytes.readUInt32LE(at + 4)
    if (tag === 2) bytes.writeUInt32LE(uid(id), at + 4)
    if (tag === 8) bytes.writeUInt32LE(gid(id), at + 4)
  }
  return bytes.toString('hex')
}

const translateTree = (tree: Tree): Tree => {
  for (const node of tree.nodes.values()) {
    node.stat = { ...node.stat, uid: uid(node.stat.uid), gid: gid(node.stat.gid) }
    node.xattrs = node.xattrs.map(line =>
      line.replace(/^(system\.posix_acl_\w+=)(.*)$/, (_, name: string, hex: string) => {
        return name + translateAcl(hex)
      }),
    )
  }
  return tree
}

/** The caller, in ids on disk. The union gets the same ids or mapped ids. */
type Ids = (uid: number, gid: number) => CallerIds
const plainIds: Ids = (u, g) => ({ uid: u, gid: g, umask: 0o027 })
const mappedIds: Ids = (u, g) => ({ uid: uid(u), gid: gid(g), umask: 0o027 })

const random = (seed: number) => (below: number) => {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
  return Math.floor((seed / 2 ** 32) * below)
}

const DIRECTORIES = ['', 'd', 'acl', 'acl/new0', 'd/new1']
const USERS = [0, 1, 5, 998, 70_000, 70_009]
const GROUPS = [0, 3, 6, 59_999]

const drive = async (fs: UnionFs, ids: Ids, seed: number): Promise<unknown[]> => {
  const pick = random(seed)
  const of = <T>(list: readonly T[]): T => list[pick(list.length)] as T
  const results: unknown[] = []
  for (let i = 0; i < 120; i++) {
    const directory = of(DIRECTORIES)
    const path = (name: string): string => (directory === '' ? name : `${directory}/${name}`)
    const name = path(of(['f', 's', 'p', 'foreign', 'new0', 'new1', 'new2']))
    const caller = ids(of(USERS), of(GROUPS))
    const mode = of([0o644, 0o2755, 0o600, 0o6777])
    const calls = [
      () => fs.create(name, mode & 0o777, caller),
      () => fs.mkdir(name, mode & 0o777, caller),
      () => fs.mknod(name, sys.S.IFIFO | (mode & 0o777), 0, 0, caller),
      () => fs.symlink('target', name, caller),
      () => fs.chown(name, caller.uid, caller.gid),
      () => fs.chown(name, -1, caller.gid),
      () => fs.chown(name, caller.uid, -1),
      () => fs.chmod(name, mode),
      () => fs.unlink(name),
      () => fs.rename(name, path('new2')),
      () =>
        fs.setxattr(
          name,
          'system.posix_acl_access',
          acl(`u::rwx,u:${caller.uid}:r-x,g::r-x,g:${caller.gid}:rwx,m::rwx,o::---`),
        ),
      () => fs.write(name, 'text'),
    ]
    results.push(await (calls[pick(calls.length)] as () => unknown)())
  }
  return results
}

t.test('the same calls with and without a mapping', { skip: !isRoot && 'needs root' }, async t => {
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    const change = { volatile: true, whiteout: seed % 2 === 0 ? 'xattr' : 'auto' } as const
    const plainAt = unionDirectories(t, { lower: [LOWER] })
    const mappedAt = { ...unionDirectories(t, { lower: [] }), lower: plainAt.lower }
    const plain = open(t, optionsOf(plainAt, change))
    const mapped = open(t, optionsOf(mappedAt, { ...change, owners: MAPPING }))
    const expected = await drive(plain, plainIds, seed)
    t.strictSame(await drive(mapped, mappedIds, seed), expected, `seed ${seed}: results`)
    const rules = { now: BigInt(Date.now() - 60_000) * 1_000_000n }
    const wanted = translateTree(await plain.tree())
    t.strictSame(diffTrees(wanted, await mapped.tree(), rules), [], 'as it is shown')
    const disk = diffTrees(readTree(plainAt.upper), readTree(mappedAt.upper), rules)
    t.strictSame(
      disk.filter(d => d.field !== 'ino' && d.field !== 'listed ino'),
      [],
      'on disk',
    )
    plain.close()
    mapped.close()
  }
})

t.test('ids without a mapping', { skip: !isRoot && 'needs root' }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const fs = open(t, optionsOf(where, { volatile: true, owners: MAPPING }))
  const foreign = (): unknown => sys.lstat(sys.AT_FDCWD, `${where.upper}/d/foreign`)
  t.match(await fs.stat('d/foreign'), { uid: OVERFLOW, gid: OVERFLOW })
  const stranger: CallerIds = { uid: 5, gid: 200_000, umask: 0 }
  const over = -E.EOVERFLOW
  t.equal(await fs.create('d/n', 0o644, { ...stranger, uid: 65534 }), over)
  t.equal(await fs.symlink('x', 'd/n', { ...stranger, uid: 1000, gid: 5 }), over)
  t.equal(
    await fs.mknod('d/n', sys.S.IFIFO | 0o644, 0, 0, { ...stranger, uid: 1000, gid: 5 }),
    over,
  )
  t.equal(await fs.chown('d/foreign', OVERFLOW, -1), over, 'not even to the shown id')
  t.equal(await fs.chown('d/foreign', -1, 5), over)
  const named = acl('u::rwx,u:0:r-x,g::r-x,m::rwx,o::---')
  t.equal(await fs.setxattr('acl/f', 'system.posix_acl_access', named), -E.EINVAL)
  t.strictSame(sys.lstat(sys.AT_FDCWD, `${where.upper}/d`), -E.ENOENT, 'nothing was copied up')

  const root: CallerIds = { uid: 0, gid: 0, umask: 0 }
  t.equal(await fs.mkdir('d/n', 0o755, root), 0, 'root has no id on disk')
  const made = (): unknown => sys.lstat(sys.AT_FDCWD, `${where.upper}/d/n`)
  t.match(made(), { uid: OVERFLOW, gid: 3 }, "the group is the directory's")
  t.equal(await fs.chown('d/n', 0, 0), over)
  t.equal(await fs.chown('d/n', 1000, 200_000), 0, 'but can give it to a mapped user')
  t.match(made(), { uid: 0, gid: 0 })

  t.equal(await fs.chmod('d/foreign', 0o600), 0)
  t.match(foreign(), { uid: 5000, gid: 60_000, mode: sys.S.IFREG | 0o600 }, 'the owner stays')
  t.equal(await fs.chown('d/foreign', 1000, -1), 0)
  t.match(foreign(), { uid: 0, gid: 60_000 })
  const shown = await fs.getxattr('acl/f', 'system.posix_acl_access')
  t.equal(shown, acl(`u::rw-,u:${OVERFLOW}:r--,g::r--,g:200004:rw-,m::rw-,o::---`))
  t.equal(
    await fs.setxattr('acl/f', 'system.posix_acl_access', String(shown)),
    -E.EINVAL,
    'a shown overflow id can not be stored',
  )
})

const CAPABILITY = 'security.capability'
const capability = (root?: number): string => {
  const out = Buffer.alloc(root === undefined ? 20 : 24)
  out.writeUInt32LE(root === undefined ? 0x02000001 : 0x03000001, 0)
  out.writeUInt32LE(0x400, 4)
  if (root !== undefined) out.writeUInt32LE(root, 20)
  return out.toString('latin1')
}

t.test('the root of a file capability', { skip: !isRoot && 'needs root' }, async t => {
  const where = unionDirectories(t, {
    lower: [
      {
        plain: file('', { xattrs: { [CAPABILITY]: capability() } }),
        other: file('', { xattrs: { [CAPABILITY]: capability(3) } }),
        foreign: file('', { xattrs: { [CAPABILITY]: capability(5000) } }),
        f: '',
      },
    ],
  })
  const fs = open(t, optionsOf(where, { volatile: true, owners: MAPPING }))
  const onDisk = (): string =>
    (sys.getxattr({ path: `${where.upper}/f`, follow: false }, CAPABILITY) as Buffer).latin1Slice()
  t.equal(await fs.getxattr('plain', CAPABILITY), capability(1000))
  t.equal(await fs.getxattr('other', CAPABILITY), capability(100_002))
  t.equal(await fs.getxattr('foreign', CAPABILITY), -E.ENODATA)
  t.equal(await fs.setxattr('f', CAPABILITY, capability(1000)), 0)
  t.equal(onDisk(), capability())
  t.equal(await fs.setxattr('f', CAPABILITY, capability(100_005)), 0)
  t.equal(onDisk(), capability(6))
  t.equal(await fs.getxattr('f', CAPABILITY), capability(100_005))
  t.equal(await fs.setxattr('f', CAPABILITY, capability()), -E.EINVAL, 'root has no id on disk')
  t.equal(fs.ops.getxattr(fs.id('plain'), CAPABILITY, Buffer.alloc(64), 0, 0), 24)
  t.equal(fs.ops.getxattr(fs.id('plain'), CAPABILITY, Buffer.alloc(64), 0, 20), -E.ERANGE)
})

t.test('squashed', { skip: !isRoot && 'needs root' }, async t => {
  const where = unionDirectories(t, { lower: [LOWER] })
  const fs = open(t, optionsOf(where, { volatile: true, owners: { squashUid: 0, squashGid: 9 } }))
  const disk = (path: string): unknown => sys.lstat(sys.AT_FDCWD, `${where.upper}/${path}`)
  for (const node of (await fs.tree()).nodes.values())
    t.match(node.stat, { uid: 0, gid: 9 }, node.path)
  t.equal(await fs.create('n', 0o644, { uid: 12, gid: 13, umask: 0 }), 0)
  t.match(await fs.stat('n'), { uid: 0, gid: 9 })
  t.match(disk('n'), { uid: 12, gid: 13 }, 'but on disk the owner is the caller')
  t.equal(await fs.chown('n', 14, 15), 0)
  t.match(disk('n'), { uid: 14, gid: 15 })
  t.match(await fs.stat('n'), { uid: 0, gid: 9 })

  const both = unionDirectories(t, { lower: [LOWER] })
  const mixed = open(t, optionsOf(both, { volatile: true, owners: { ...MAPPING, squashUid: 1 } }))
  t.match(await mixed.stat('d/f'), { uid: 1, gid: 200_006 })
  t.equal(
    await mixed.chown('d/f', 65534, 200_001),
    0,
    'an owner without an id on disk is unchanged',
  )
  t.match(sys.lstat(sys.AT_FDCWD, `${both.upper}/d/f`), { uid: 5, gid: 1 })
})

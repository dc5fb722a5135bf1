import * as fs from 'node:fs'

import t from 'tap'

import { ensureUpperDir } from '../../../../src/overlay/copy-up/directory.js'
import { ROOT_ID } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import { dir, unionDirectories, type Layer } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { openFds, optionsOf, readOnlyOptions } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

const LOWER: Layer = {
  'a/': dir({ mode: 0o3711, uid: 5, gid: 6, xattrs: { 'user.x': 'y' } }),
  'a/b\xff/c/file': 'x',
}
/** The attributes that the copy must keep. */
const stat = (path: string): unknown[] => {
  const { mode, uid, gid, atime, mtime } = sys.lstat(sys.AT_FDCWD, path) as sys.Stat
  return [mode, uid, gid, atime, mtime, sys.getxattr({ path, follow: false }, 'user.x')]
}

t.test('the upper layer gets the directory and its ancestors with their attributes', async t => {
  if (skipUnions !== false) return t.comment(skipUnions)
  const where = unionDirectories(t, { lower: [LOWER] })
  const { u, find, notified } = stateOf(t, optionsOf(where, { volatile: true }))
  const c = find('a/b\xff/c')
  c.lookups = 1
  const before = openFds()
  t.equal(ensureUpperDir(u, c), 0)
  for (const path of ['a', 'a/b\xff', 'a/b\xff/c'])
    t.strictSame(stat(`${where.upper}/${path}`), stat(`${where.lower[0]}/${path}`), path)
  const bytes = Buffer.from(`${where.upper}/a/b\xff/c`, 'latin1')
  t.strictSame(fs.readdirSync(bytes), [], 'the directory alone')
  t.strictSame([c.upper, c.dirs.length, c.lowerPositive], [true, 2, true])
  t.strictSame(notified, [ROOT_ID, c.id], 'one has another ctime, one another link count')
  t.equal(ensureUpperDir(u, c), 0, 'nothing is left to do')
  t.strictSame(fs.readdirSync(`${where.work}/work`), ['incompat'])
  const more = openFds().filter(path => !before.includes(path))
  t.notOk(
    more.some(path => path.includes('/work/')),
    'nothing is open in the work directory',
  )
})

t.test('a failure leaves no partial directory', async t => {
  if (skipUnions !== false) return t.comment(skipUnions)
  const where = unionDirectories(t, { lower: [LOWER] })
  const { u, find, notified } = stateOf(t, optionsOf(where, { volatile: true }))
  const c = find('a/b\xff/c')
  t.equal(ensureUpperDir(u, find('a/b\xff')), 0)
  const upper = Buffer.from(`${where.upper}/a/b\xff/c`, 'latin1')
  fs.writeFileSync(upper, 'in the way')
  t.equal(ensureUpperDir(u, c), -E.EEXIST)
  t.strictSame([c.upper, c.dirs.length], [false, 1])
  t.equal(fs.readFileSync(upper, 'latin1'), 'in the way')
  t.strictSame(fs.readdirSync(`${where.work}/work`), ['incompat'])
  c.parent = null
  t.equal(ensureUpperDir(u, c), -E.ENOENT, 'a directory without a name')
  t.strictSame(notified, [ROOT_ID])
})

t.test('a read-only union fails with EROFS', { skip: skipUnions }, async t => {
  const { u, find } = stateOf(t, readOnlyOptions(unionDirectories(t, { lower: [LOWER] })))
  t.equal(ensureUpperDir(u, find('a')), -E.EROFS)
})

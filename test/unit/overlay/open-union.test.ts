import * as fs from 'node:fs'

import t from 'tap'

import { silentLogger } from '../../../src/log.js'
import { openState } from '../../../src/overlay/open-union.js'
import type { UnionOptions } from '../../../src/overlay/options.js'
import { errnoName } from '../../../src/sys/errno.js'
import { clonePrivate } from '../../../src/sys/mount.js'
import { close } from '../../../src/sys/io.js'
import { withOverlayXattrs, scratch, unionDirectories } from '../../helpers/layers.js'
import * as sys from '../../helpers/syscalls.js'
import { leakedFds, openFds, optionsOf, readOnlyOptions } from '../../helpers/union.js'
import { skipUnions, stateOf } from './support.js'

const deps = {
  log: silentLogger,
  notifier: { attrChanged: () => {}, dropPages: () => null, forgetNodes: () => null },
  writeback: false,
}

t.test('an error names its cause, and nothing stays open', async t => {
  if (skipUnions !== false) return t.comment(skipUnions)
  const where = unionDirectories(t, { lower: [{}, {}] })
  fs.writeFileSync(`${where.top}/file`, '')
  const good = optionsOf(where)
  const before = openFds()
  const fails = (change: Partial<UnionOptions>, about: object, checked?: true): void => {
    const umask = process.umask()
    const make = (): unknown =>
      openState({ ...good, ...change }, checked === true ? { ...deps, checked } : deps)
    t.throws(make, { name: 'MountError', ...about })
    process.umask(umask)
    t.strictSame(openFds(), before)
  }
  const none = `${where.top}/none`
  fails({ lower: [...where.lower, none] }, { option: 'lowerdir', path: none }, true)
  fails({ upper: none }, { option: 'upperdir', path: none, code: 'ENOENT' }, true)
  fails({ work: `${where.top}/file` }, { option: 'workdir', code: 'ENOTDIR' }, true)
  fails({ lower: [none] }, { option: 'lowerdir' })
  fs.writeFileSync(`${where.work}/work`, 'in the way')
  fails({}, { option: 'workdir', path: where.work }, true)
  fs.rmSync(`${where.work}/work`)
  fs.mkdirSync(`${where.work}/work/incompat`, { recursive: true })
  fs.writeFileSync(`${where.work}/work/incompat/volatile`, 'in the way')
  fails({ volatile: true }, { option: 'volatile', path: where.work }, true)
  fs.rmSync(`${where.work}/work`, { recursive: true })

  // The same layers can be opened again. A second union over them does not get the locks.
  const state = stateOf(t, good)
  t.throws(() => openState(good, { ...deps, checked: true }), { code: 'EBUSY' })
  state.close()
  t.strictSame(await leakedFds(before), [])
})

t.test('layers know their file systems, and lower ones cannot be written', async t => {
  if (skipUnions !== false) return t.comment(skipUnions)
  const where = unionDirectories(t, { lower: [{ f: '' }, {}] })
  const memory = scratch(t, 'tmpfs')
  const { u } = stateOf(t, optionsOf({ ...where, lower: [...where.lower, memory] }))
  t.equal(u.fsCount, 2)
  t.strictSame(
    [u.upper!, ...u.lowers].map(layer => [layer.index, layer.fsIndex]),
    [
      [0, 0],
      [1, 0],
      [2, 0],
      [3, 1],
    ],
  )
  t.equal(u.nodes.root.ino, Number((sys.lstat(sys.AT_FDCWD, where.upper) as sys.Stat).ino))
  const tree = clonePrivate(where.lower[0]!)
  if (tree < 0) return t.comment(`no private mounts here: ${errnoName(tree)}`)
  close(tree)
  for (const { fd } of u.lowers)
    t.equal(errnoName(sys.openat(fd, 'new', sys.O.CREAT | sys.O.WRONLY, 0o600)), 'EROFS')
})

t.test('the files that a union creates', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [{}] })
  const dirty = `${where.work}/work/incompat/volatile/dirty`
  const open = (change: Partial<UnionOptions>): ReturnType<typeof stateOf> =>
    stateOf(t, optionsOf(where, change))
  const reader = open({ readOnly: true })
  t.equal(reader.u.workdir, null)
  reader.close()
  t.strictSame(fs.readdirSync(where.work), [], 'nothing, where it only reads')
  const plain = open({ index: false, fsync: false })
  t.ok(plain.u.syncIsFree)
  plain.close()
  t.strictSame(fs.readdirSync(where.work), ['work'])
  const indexed = open({})
  t.notOk(indexed.u.syncIsFree)
  t.equal(fs.existsSync(`${where.work}/index`), indexed.u.lowers[0]!.handles)
  indexed.close()
  t.notOk(fs.existsSync(dirty))
  const volatile = open({ volatile: true })
  t.ok(volatile.u.syncIsFree)
  t.ok(fs.existsSync(dirty))
  volatile.close()
  t.throws(() => open({}), /volatile|incompat/, 'whose data may be lost')
})

t.test('a root with overlay xattrs', { skip: skipUnions }, async t => {
  const lower = [
    { './': withOverlayXattrs({ opaque: 'x' }), a: '' },
    { '.wh..wh..opq': '' },
    { './': withOverlayXattrs({ opaque: 'y' }), b: '' },
  ]
  const { u } = stateOf(t, readOnlyOptions(unionDirectories(t, { lower })))
  t.equal(u.nodes.root.dirs.length, 2, 'nothing below the one that says that it is all')
  t.strictSame(
    u.lowers.map(layer => layer.root.xattrWhiteouts),
    [true, false, false],
  )
})

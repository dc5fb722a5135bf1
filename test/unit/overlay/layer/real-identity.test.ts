/**
 * A node, and a directory's descriptor, stand for a single real object, whichever object takes its
 * name (real-identity.ts).
 */

import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import t, { type Test } from 'tap'

import { identify, isSame } from '../../../../src/overlay/layer/real-identity.js'
import { Attr, Entry, SetAttr, SetAttrValid as V } from '../../../../src/overlay/ops.js'
import { fstatx } from '../../../../src/sys/at.js'
import { E } from '../../../../src/sys/errno.js'
import { Stat } from '../../../../src/sys/stat.js'
import { dir, file, scratch, unionDirectories } from '../../../helpers/layers.js'
import { optionsOf } from '../../../helpers/union.js'
import { pendingOf, resultOf, skipUnions, stateOf } from '../support.js'

t.test('a reused inode number is another object', async t => {
  const st = new Stat()
  const fd = fs.openSync(t.testdir({ f: '' }) + '/f', 'r')
  t.equal(fstatx(fd, st), 0)
  fs.closeSync(fd)
  const it = { real: 0, birth: 0 }
  t.ok(isSame(it, st), 'nothing is known of it')
  identify(it, st, null)
  t.ok(isSame(it, st))
  for (const change of [
    () => void (st.btimeNsec ^= 1),
    () => void (st.btimeSec += 1),
    () => void (st.ino = Number(st.ino) + 1),
    () => void (st.ino = 2n ** 60n),
  ]) {
    const before = new Stat()
    before.copyFrom(st)
    change()
    t.notOk(isSame(it, st))
    st.copyFrom(before)
  }
  st.mask &= ~0x800
  t.notOk(isSame(it, st))
  identify(it, st, null)
  st.btimeSec += 1
  t.ok(isSame(it, st), 'a file system without times of birth')
})

t.test('a directory that takes the name of another', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    lower: [
      { 'lower/f': '', 'copied/f': '', 'moved/f': '', 'target/f': '' },
      { 'lower/g': '', 'target/g': '' },
    ],
    upper: { 'upper/f': '', 'merged/': dir() },
  })
  const { u, ops, find } = stateOf(t, { ...optionsOf(where), redirectDir: 'on' })
  const caller = { uid: 0, gid: 0, pid: process.pid, umask: 0 }
  const attr = new SetAttr()
  attr.valid = V.MODE
  attr.mode = 0o755
  t.equal(ops.setattr(find('copied').id, attr, new Attr()), 0)
  t.equal(ops.mkdir(caller, 1, 'made', 0o755, new Entry()), 0)
  t.equal(ops.unlink(find('target').id, 'f'), 0)
  t.equal(ops.unlink(find('target').id, 'g'), 0)
  t.equal(ops.rename(1, 'moved', 1, 'target', 0), 0)
  const [lower = ''] = where.lower
  for (const [name, layer] of [
    ['lower', lower],
    ['upper', where.upper],
    ['copied', where.upper],
    ['made', where.upper],
    ['target', where.upper],
  ] as const) {
    const node = find(name)
    fs.mkdirSync(`${layer}/another`, { mode: 0o700 })
    fs.writeFileSync(`${layer}/another/secret`, '')
    fs.renameSync(`${layer}/${name}`, `${layer}/away`)
    fs.renameSync(`${layer}/another`, `${layer}/${name}`)
    const top = node.dirs[0]!
    t.notSame(top.real, 0, name)
    u.fds.drop(top)
    t.equal(ops.lookup(node.id, 'secret', new Entry()), -E.ESTALE, name)
    const names: string[] = []
    t.equal(ops.readdir(node.id, 0, { add: entry => names.push(entry) > 0 }), -E.ESTALE, name)
    t.notMatch(names, ['secret'])
    const found = new Entry()
    t.equal(ops.lookup(1, name, found), 0)
    t.not(found.nodeId, node.id, name)
    t.equal(found.attr.mode & 0o777, 0o700)
    t.equal(ops.lookup(found.nodeId, 'secret', new Entry()), 0)
    fs.renameSync(`${layer}/${name}`, `${layer}/another-${name}`)
    fs.renameSync(`${layer}/away`, `${layer}/${name}`)
  }
})

t.test('a copy has the owner and the mode of the original', { skip: skipUnions }, async t => {
  const own = file('own'.repeat(1 << 20), { mode: 0o644, uid: 7, gid: 7 })
  const where = unionDirectories(t, {
    lower: [{ f: own, program: file('program', { mode: 0o4755, xattrs: { 'user.a': 'b' } }) }],
  })
  const { ops, find } = stateOf(t, optionsOf(where))
  const [lower = ''] = where.lower
  t.equal(ops.lookup(1, 'f', new Entry()), 0)
  const node = find('f')
  const attr = new SetAttr()
  attr.valid = V.MODE
  attr.mode = 0o777
  const pending = pendingOf(() => ops.setattr(node.id, attr, new Attr()))
  fs.renameSync(`${lower}/program`, `${lower}/f`)
  t.equal(await resultOf(pending, () => ops.runCallbacks()), 0)
  const copy = fs.statSync(`${where.upper}/f`)
  t.strictSame([copy.uid, copy.gid, copy.mode & 0o7777], [7, 7, 0o644])
  t.equal(ops.getxattr(node.id, 'user.a', Buffer.alloc(0), 0, 0), -E.ENODATA)
  t.equal(ops.setattr(node.id, attr, new Attr()), 0)
  t.equal(fs.statSync(`${where.upper}/f`).mode & 0o7777, 0o777)
})

t.test('a number on another device is another object', async t => {
  const st = new Stat()
  const fd = fs.openSync(t.testdir({ f: '' }) + '/f', 'r')
  t.equal(fstatx(fd, st), 0)
  fs.closeSync(fd)
  for (const keepsBirthTimes of [true, false]) {
    const it = { real: 0, birth: 0 }
    identify(it, st, { dev: st.dev, keepsBirthTimes })
    t.ok(isSame(it, st))
    for (const word of [34, 35]) {
      st.words[word]! += 1
      t.notOk(isSame(it, st))
      st.words[word]! -= 1
    }
    st.btimeSec += 1
    t.equal(isSame(it, st), !keepsBirthTimes, 'born anew by a copy-up in another union')
    st.btimeSec -= 1
  }
})

/**
 * Mounts a kernel overlayfs over these layers in a new directory. Unmounts it at the end of the
 * test.
 */
const kernelUnion = (t: Test, lowers: string[], upper = ''): string => {
  const top = scratch(t)
  const run = (program: string, ...args: string[]): void =>
    void execFileSync(program, args, { cwd: top })
  for (const name of [...lowers, 'm']) fs.mkdirSync(`${top}/${name}`)
  for (const [i, name] of lowers.entries()) {
    run('mount', '-t', 'tmpfs', 'none', name)
    fs.mkdirSync(`${top}/${name}/up${i}`)
    fs.writeFileSync(`${top}/${name}/up${i}/f`, `of ${name}`)
    fs.linkSync(`${top}/${name}/up${i}/f`, `${top}/${name}/up${i}/f2`)
    fs.writeFileSync(`${top}/${name}/up${i}/g`, `of ${name}`)
    fs.mkdirSync(`${top}/${name}/work${i}`)
  }
  let options = `lowerdir=${lowers.join(':')},xino=off`
  if (upper !== '') {
    fs.mkdirSync(`${top}/${upper}/u`, { recursive: true })
    fs.mkdirSync(`${top}/${upper}/w`)
    options += `,upperdir=${upper}/u,workdir=${upper}/w`
  }
  run('mount', '-t', 'overlay', 'none', '-o', options, 'm')
  return `${top}/m`
}

t.test('a lower layer of several devices', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [{}] })
  const merged = kernelUnion(t, ['one', 'two'])
  const { ops, find } = stateOf(t, { ...optionsOf(where), lower: [merged] })
  const [one, two] = [0, 1].map(i => fs.statSync(`${merged}/up${i}/f`))
  t.equal(one!.ino, two!.ino, 'one number')
  const attr = new SetAttr()
  attr.valid = V.SIZE
  const node = find('up0/f')
  t.equal(ops.setattr(node.id, attr, new Attr()), 0)
  t.not(find('up1/f'), node)
  const out = new Entry()
  t.equal(ops.lookup(find('up1').id, 'f', out), 0)
  t.equal(out.attr.size, 6)
  t.equal(find('up0/g').ino, find('up1/g').ino, 'one number is shown, as in kernel overlayfs')
})

t.test('an upper layer in the lower content of another union', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [{}] })
  const merged = kernelUnion(t, ['one'], 'other')
  const options = { ...optionsOf(where), upper: `${merged}/up0`, work: `${merged}/work0` }
  const { ops, find } = stateOf(t, options)
  const attr = new SetAttr()
  attr.valid = V.MODE
  for (const name of ['f', 'g']) {
    const node = find(name)
    for (const mode of [0o600, 0o640, 0o644]) {
      attr.mode = mode
      t.equal(ops.setattr(node.id, attr, new Attr()), 0, `${name} ${mode.toString(8)}`)
    }
    t.equal(find(name), node)
  }
  const value = Buffer.from('a')
  for (const name of ['f2', 'g']) {
    const node = find(name)
    t.equal(ops.setxattr(node.id, 'user.a', value, 0, false), 0)
    t.equal(ops.removexattr(node.id, 'user.a'), 0)
    t.equal(ops.getattr(node.id, 0, new Attr()), 0)
  }
  t.equal(ops.link(find('g').id, 1, 'g2', new Entry()), 0)
  t.equal(find('g2'), find('g'))
})

import * as fs from 'node:fs'

import t from 'tap'

import { recordMode, recordMove } from '../../../../src/overlay/owner/owner-access-records.js'
import { E } from '../../../../src/sys/errno.js'
import {
  dir,
  file,
  link,
  symlink,
  unionDirectories,
  whiteout,
  type UnionDirectories,
} from '../../../helpers/layers.js'
import { open, optionsOf } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

const LAYERS = {
  lower: [{ moved: 'lower', gone: 'lower', there: 'lower' }],
  upper: {
    'd/': dir({ mode: 0o700 }),
    'd/f': file('f', { mode: 0o600 }),
    moved: 'what the move replaced',
    'replaced/x': 'x',
    link: symlink('..'),
    there: 'still here',
  },
}

const recordsOf = (where: UnionDirectories): string[] => fs.readdirSync(`${where.work}/work`)
const modeOf = (path: string): number => fs.statSync(path).mode & 0o7777
const inoOf = (path: string): number => fs.lstatSync(path).ino

/** Creates records as an ended mount would have left them. */
const leave = (where: UnionDirectories, ...records: string[]): void => {
  fs.mkdirSync(`${where.work}/work`, { recursive: true })
  for (const [i, target] of records.entries())
    fs.symlinkSync(target, `${where.work}/work/#lent.${(i + 1).toString(16)}`)
}

t.test('a written record is understood', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, LAYERS)
  const options = optionsOf(where, { volatile: false })
  const { u, close } = stateOf(t, options)
  const upper = u.upper!.fd
  const work = u.workdir!.fd
  const object = { fd: upper, name: 'd' }
  t.match(recordMode([object], inoOf(`${where.upper}/d`), 0o500, 0o700), { name: /^#lent\./ })
  const deep = { fd: upper, name: 'd/f' }
  t.type(recordMode([deep, object], inoOf(`${where.upper}/d/f`), 0o400, 0o600), 'object')
  t.type(recordMove(work, { fd: upper, name: 'moved' }, inoOf(`${where.upper}/moved`)), 'object')
  t.type(recordMove(work, { fd: upper, name: 'gone' }, 0), 'object')
  t.match(recordMode([{ fd: work, name: 'x' }], 1, 0, 0o200), { name: '' }, 'of the workdir')
  t.equal(recordMode([{ fd: u.lowers[0]!.fd, name: 'moved' }], 1, 0, 0o200), -E.EACCES)
  t.equal(recordMove(-1, object, 0), -E.EROFS)
  t.equal(recordsOf(where).filter(name => name.startsWith('#lent.')).length, 4)
  close()

  const union = open(t, options)
  t.equal(modeOf(`${where.upper}/d`), 0o500)
  t.equal(modeOf(`${where.upper}/d/f`), 0o400)
  t.equal(await union.read('moved'), -E.ENOENT)
  t.equal(await union.read('gone'), -E.ENOENT)
  t.equal(await union.read('there'), 'still here')
  t.strictSame(union.loggedMessages, [])
  union.close()
  t.strictSame(recordsOf(where), [])
  t.equal(fs.readFileSync(`${where.lower[0]}/moved`, 'utf8'), 'lower')
})

t.test('a record does no more than its owner could', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, LAYERS)
  const outside = `${where.top}/outside`
  fs.writeFileSync(outside, 'outside', { mode: 0o700 })
  const [d, f] = [inoOf(`${where.upper}/d`), inoOf(`${where.upper}/d/f`)]
  const secret = inoOf(outside)
  const modes = [outside, `${where.upper}/d`, `${where.upper}/d/f`].map(modeOf)
  leave(
    where,
    `500 700 ${f} d`,
    `500 600 ${d} d`,
    `4700 700 ${d} d`,
    `677 600 ${f} d/f`,
    `600 4600 ${f} d/f`,
    `500 700 ${secret} ../outside`,
    `500 700 ${secret} link/outside`,
    `500 700 ${secret} ${outside}`,
    `500 700 ${secret} d/../../outside`,
    `hide ${secret} ../outside`,
    `hide ${secret} link/outside`,
    `hide ${inoOf(where.top)} ..`,
    `hide ${inoOf(where.upper)} .`,
    `hide ${d} d/`,
    `hide ${d} `,
    `hide ${f} there`,
    'hide 0 there',
    'hide 0 none/x',
    'nothing',
    'x'.repeat(4000),
  )
  // Records of another user: for objects that do not belong to that user, and for a move.
  leave(where)
  for (const [name, target] of [
    ['#lent.a1', `500 700 ${d} d`],
    ['#lent.a2', `hide ${inoOf(`${where.upper}/moved`)} moved`],
    ['#lent.a3', 'hide 0 gone'],
  ] as const) {
    fs.symlinkSync(target, `${where.work}/work/${name}`)
    fs.lchownSync(`${where.work}/work/${name}`, 1234, 1234)
  }
  fs.mkdirSync(`${where.work}/work/#lent.directory/sub`, { recursive: true })
  fs.writeFileSync(`${where.work}/work/#lent.file`, `500 700 ${d} d`)
  const union = open(t, optionsOf(where))
  t.strictSame([outside, `${where.upper}/d`, `${where.upper}/d/f`].map(modeOf), modes)
  t.equal(fs.readFileSync(outside, 'utf8'), 'outside')
  t.equal(await union.read('there'), 'still here')
  t.equal(await union.read('moved'), 'what the move replaced')
  t.equal(await union.read('gone'), 'lower')
  t.equal(await union.read('d/f'), 'f')
  t.equal(fs.readlinkSync(`${where.upper}/link`), '..')
  t.strictSame(union.loggedMessages, [])
  union.close()
  t.strictSame(recordsOf(where), [])
})

t.test('a path that is too long for a record causes no failure', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [{}] })
  const { u, close } = stateOf(t, optionsOf(where))
  const deep = Array.from({ length: 12 }, () => 'n'.repeat(200)).join('/')
  fs.mkdirSync(`${where.upper}/${deep}`, { recursive: true })
  const fd = fs.openSync(`/proc/self/fd/${u.upper!.fd}/${deep}`, 'r')
  const objects = ['a', 'b'].map(name => ({ fd, name }))
  t.match(recordMode(objects, 1, 0o500, 0o700), { name: '' }, 'two, of more than 4095 bytes')
  t.match(recordMode([objects[0]!], 1, 0o500, 0o700), { name: /^#lent\./ })
  fs.closeSync(fd)
  close()
})

t.test('the mode of an object of the record’s owner is restored', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, LAYERS)
  const d = `${where.upper}/d`
  fs.chownSync(d, 1234, 1234)
  leave(where, `500 700 ${inoOf(d)} none//d`)
  fs.lchownSync(`${where.work}/work/#lent.1`, 1234, 1234)
  open(t, optionsOf(where)).close()
  t.equal(modeOf(d), 0o500)
})

t.test('an object in the index is recorded, too', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [{ a: 'a', b: link('a') }] })
  let union = open(t, optionsOf(where, { index: true }))
  t.equal(await union.chmod('a', 0o600), 0)
  union.close()
  const { u, close } = stateOf(t, optionsOf(where, { index: true }))
  const [key = ''] = fs.readdirSync(`${where.work}/index`)
  const entry = `${where.work}/index/${key}`
  t.type(recordMode([{ fd: u.workdir!.indexFd, name: key }], inoOf(entry), 0o400, 0o600), 'object')
  close()
  union = open(t, optionsOf(where, { index: true }))
  t.equal(modeOf(entry), 0o400)
  t.strictSame(union.loggedMessages, [])
  union.close()
  t.strictSame(recordsOf(where), [])
})

t.test('a move over a directory is completed', { skip: skipUnions }, async t => {
  const lower = [{ 'replaced/low': 'low' }]
  for (const form of ['char', 'xattr', 'wh'] as const) {
    const where = unionDirectories(t, { upper: { 'replaced/low': whiteout }, lower })
    leave(where, `hide ${inoOf(`${where.upper}/replaced`)} replaced`)
    const union = open(t, optionsOf(where, { whiteout: form }))
    t.equal(await union.read('replaced/low'), -E.ENOENT, form)
    t.strictSame(await union.list('replaced'), -E.ENOENT)
    t.strictSame(union.loggedMessages, [])
    union.close()
    t.strictSame(recordsOf(where), [])
    t.strictSame(fs.readdirSync(where.upper), [form === 'wh' ? '.wh.replaced' : 'replaced'])
  }
})

t.test('an object that was created in such a directory stays', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, LAYERS)
  leave(where, `hide ${inoOf(`${where.upper}/replaced`)} replaced`)
  const union = open(t, optionsOf(where))
  t.equal(await union.read('replaced/x'), 'x')
  t.match(union.loggedMessages.at(-1), { message: 'cannot finish a move of an earlier mount' })
  union.close()
  t.equal(fs.readFileSync(`${where.upper}/replaced/x`, 'utf8'), 'x')
})

import { readdirSync } from 'node:fs'

import t from 'tap'

import type { Opened } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import type { Fs } from '../../../helpers/fs-calls.js'
import {
  dir,
  link,
  opaque,
  symlink,
  unionDirectories,
  whiteout,
  type Layer,
  type Spec,
} from '../../../helpers/layers.js'
import { compare, NOTHING_OPEN, skipParity, type Scenario } from '../../../helpers/parity.js'
import { O, RENAME } from '../../../helpers/syscalls.js'
import { open, optionsOf } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

/** The objects that one name has in the layers: paths below the name; '' is the name itself. */
interface Thing {
  upper?: Record<string, string | Spec>
  lower?: Record<string, string | Spec>
  lowest?: Record<string, string | Spec>
}

const SOURCES: Record<string, Thing> = {
  'upper file': { upper: { '': 'u' } },
  'lower file': { lower: { '': 'l' } },
  'covering file': { upper: { '': 'u' }, lower: { '': 'l' } },
  'lower hard link': { lower: { '': 'h', '.other': link('') } },
  'lower symlink': { lower: { '': symlink('some/where') } },
  'upper directory': { upper: { '/f': 'u' } },
  'lower directory': { lower: { '/f': 'l', '/sub/g': 'g' } },
  'merged directory': {
    upper: { '/f': 'u', '/gone': whiteout },
    lower: { '/f': 'l', '/gone': 'l', '/g': 'l' },
    lowest: { '/h': 'll' },
  },
  'lowest directories': { lower: { '/g': 'l' }, lowest: { '/h': 'll' } },
  'opaque directory': { upper: { '/': opaque(), '/f': 'u' }, lower: { '/g': 'l' } },
}

const TARGETS: Record<string, Thing> = {
  nothing: {},
  'upper file': { upper: { '': 'tu' } },
  'lower file': { lower: { '': 'tl' } },
  'covering file': { upper: { '': 'tu' }, lower: { '': 'tl' } },
  'lower hard link': { lower: { '': 'th', '.other': link('') } },
  'empty upper directory': { upper: { '/': dir({ mode: 0o711 }) } },
  'empty lower directory': { lower: { '/': dir() } },
  'emptied directory': {
    upper: { '/': dir({ mode: 0o700 }), '/x': whiteout },
    lower: { '/x': 'x' },
    lowest: { '/': dir() },
  },
  'empty opaque directory': { upper: { '/': opaque() }, lower: { '/x': 'x' } },
  'full lower directory': { lower: { '/x': 'x' } },
  'full merged directory': { upper: { '/y': 'y' }, lower: { '/x': 'x' } },
  'whiteout over a file': { upper: { '': whiteout }, lower: { '': 'tl' } },
  'whiteout over a directory': { upper: { '': whiteout }, lower: { '/x': 'x' } },
  'deeper whiteout': { lower: { '': whiteout }, lowest: { '/x': 'x' } },
}

const FLAGS: Record<string, number> = {
  plain: 0,
  'no replace': RENAME.NOREPLACE,
  exchange: RENAME.EXCHANGE,
}

/** A flag whose result does not depend on the target is tested with some targets only. */
const SOME: Record<string, string[]> = {
  'no replace': ['nothing', 'lower file', 'full lower directory', 'whiteout over a directory'],
}
const NOT: Record<string, string[]> = {
  exchange: ['nothing', 'whiteout over a file', 'deeper whiteout', 'full lower directory'],
}

/** The directories of the two names: merged, only in the upper layer, or only in a lower layer. */
interface Setting {
  upper: boolean
  lower: boolean
  sameDirectory: boolean
}

interface Case {
  name: string
  from: string
  to: string
  flags: number
}

const prefixed = (to: Layer, path: string, things: Thing['upper']): void => {
  for (const [below, item] of Object.entries(things ?? {})) {
    const spec =
      typeof item !== 'string' && item.type === 'link' ? link(`${path}${item.text ?? ''}`) : item
    to[`${path}${below}`] = spec
  }
}

/** All combinations, each in a directory of its own, in one set of layers. */
const matrix = (setting: Setting): { layers: Pick<Scenario, 'lower' | 'upper'>; cases: Case[] } => {
  const upper: Layer = {}
  const lower: Layer = {}
  const lowest: Layer = {}
  const cases: Case[] = []
  for (const [s, source] of Object.entries(SOURCES))
    for (const [g, target] of Object.entries(TARGETS))
      for (const [f, flags] of Object.entries(FLAGS)) {
        if (SOME[f]?.includes(g) === false || NOT[f]?.includes(g) === true) continue
        if (!setting.upper && (source.upper ?? target.upper) !== undefined) continue
        if (!setting.lower && (source.lower ?? target.lower) !== undefined) continue
        const top = `${s} to ${g}, ${f}`
        const from = `${top}/a/old`
        const to = `${top}/${setting.sameDirectory ? 'a' : 'b'}/new`
        for (const directory of new Set([from, to].map(path => path.replace(/\/\w+$/, '/')))) {
          if (setting.upper) upper[directory] = dir()
          if (setting.lower) lower[directory] = dir({ mode: 0o750 })
        }
        for (const [path, thing] of [[from, source] as const, [to, target] as const]) {
          prefixed(upper, path, thing.upper)
          prefixed(lower, path, thing.lower)
          prefixed(lowest, path, thing.lowest)
        }
        cases.push({ name: top, from, to, flags })
      }
  return { layers: { upper, lower: [lower, lowest] }, cases }
}

/** Calls after the renames, with both names. */
const AFTER: Record<string, (fs: Fs, one: Case, renamed: number) => unknown> = {
  nothing: () => 0,
  'the old name made again': async (fs, one) => [
    await fs.mkdir(one.from, 0o755),
    await fs.create(`${one.from}/again`, 0o644),
  ],
  'renamed back': (fs, one, renamed) => (renamed < 0 ? 0 : fs.rename(one.to, one.from)),
  'renamed on': async (fs, one) => [
    await fs.rename(one.to, `${one.to}er`),
    await fs.rename(`${one.to}er`, `${one.name}/c`),
  ],
  removed: async (fs, one) => [
    await fs.unlink(one.to),
    await fs.unlink(`${one.to}/f`),
    await fs.unlink(`${one.to}/g`),
    await fs.unlink(`${one.to}/h`),
    await fs.rmdir(one.to),
    await fs.unlink(one.from),
    await fs.rmdir(one.from),
  ],
  written: async (fs, one) => [
    await fs.write(one.to, 'W'),
    await fs.write(`${one.to}/f`, 'W'),
    await fs.write(`${one.to}/g`, 'W'),
    await fs.create(`${one.to}/gone`, 0o644),
  ],
}

const SETTINGS: Record<string, Setting> = {
  'in one merged directory': { upper: true, lower: true, sameDirectory: true },
  'across merged directories': { upper: true, lower: true, sameDirectory: false },
  'across lower directories': { upper: false, lower: true, sameDirectory: false },
  'across upper directories': { upper: true, lower: false, sameDirectory: false },
}

/** The combinations that are tested. Not all, because each takes a few hundred renames. */
const RUNS: {
  redirectDir?: 'on' | 'off'
  warm?: boolean
  whiteout?: 'wh' | 'xattr'
  settings: string[]
  after?: string[]
}[] = [
  { settings: Object.keys(SETTINGS) },
  { warm: false, settings: ['in one merged directory', 'across merged directories'] },
  { redirectDir: 'off', settings: ['in one merged directory', 'across merged directories'] },
  ...(['wh', 'xattr'] as const).map(form => ({
    whiteout: form,
    settings: ['in one merged directory', 'across merged directories', 'across lower directories'],
    after: ['the old name made again', 'renamed on', 'removed'],
  })),
]

t.test('every kind of object over every other', { skip: skipParity }, async t => {
  for (const run of RUNS)
    for (const where of run.settings)
      for (const then of run.after ?? Object.keys(AFTER)) {
        const { redirectDir = 'on', warm = true, whiteout: form = 'char' } = run
        const { layers, cases } = matrix(SETTINGS[where] as Setting)
        const name = `redirect_dir ${redirectDir}, ${form}, ${warm ? 'known' : 'forgotten'}, ${where}, then ${then}`
        await t.test(name, async t => {
          const scenario: Scenario = {
            ...layers,
            options: { redirectDir, whiteout: form },
            warm,
            memory: true,
            otherForm: form !== 'char',
          }
          await compare(t, name, scenario, async fs => {
            const results: Record<string, unknown> = {}
            for (const one of cases) {
              const renamed = await fs.rename(one.from, one.to, one.flags)
              results[one.name] = [renamed, await AFTER[then]?.(fs, one, renamed)]
            }
            return results
          })
        })
      }
})

t.test('directories moved again and again, with their children', { skip: skipParity }, async t => {
  const lower: Layer[] = [
    {
      'a/sub/deep/f': 'f',
      'a/g': 'g',
      'b/': dir(),
      'c/d/': dir(),
      'pure/': opaque(),
      'other/name/x': 'x',
    },
    { 'a/sub/deep/low': 'low', 'a/h': 'h', 'pure/hidden': 'no', 'c/d/e/k': 'k' },
  ]
  const moves: Record<string, [from: string, to: string, flags?: number][]> = {
    'out of a moved directory': [
      ['a', 'z'],
      ['z/sub', 'sub2'],
      ['sub2/deep', 'b/deep'],
      ['b/deep', 'z/deep'],
    ],
    'into a moved directory': [
      ['a', 'b/a'],
      ['c', 'b/a/c'],
      ['b/a/c/d', 'b/a/c/d2'],
      ['b', 'bb'],
      ['bb/a/c/d2/e', 'e'],
    ],
    'a name and back': [
      ['a', 'tmp'],
      ['other', 'a'],
      ['tmp', 'other'],
      ['a/name', 'other/name'],
    ],
    'exchanged twice': [
      ['a', 'c', RENAME.EXCHANGE],
      ['a/d', 'c/sub', RENAME.EXCHANGE],
      ['c', 'a', RENAME.EXCHANGE],
    ],
    'with a file': [
      ['a/g', 'c/d', RENAME.EXCHANGE],
      ['a', 'y'],
      ['y/g/e', 'e2'],
    ],
    'over one another': [
      ['a/sub', 'b'],
      ['b/deep', 'a/sub'],
      ['a/sub', 'b/deep'],
    ],
  }
  for (const [name, steps] of Object.entries(moves))
    for (const [redirectDir, warm] of [
      ['on', true],
      ['on', false],
      ['off', true],
    ] as const) {
      const scenario: Scenario = { lower, options: { redirectDir }, warm, memory: true }
      await compare(t, `${name}, ${redirectDir}, ${warm}`, scenario, async fs => {
        const results: unknown[] = []
        for (const [from, to, flags] of steps)
          results.push(await fs.rename(from, to, flags), await fs.list(to))
        results.push(await fs.mkdir('a', 0o755), await fs.create('a/new', 0o644))
        return results
      })
    }
})

t.test('a redirect that is too long', { skip: skipParity }, async t => {
  const path = ['x'.repeat(100), 'y'.repeat(100), 'z'.repeat(100)].join('/')
  const lower: Layer = { [`${path}/sub/f`]: 'f', 'to/': dir() }
  await compare(t, 'long', { lower: [lower], options: { redirectDir: 'on' }, memory: true }, fs =>
    Promise.all([
      fs.rename(`${path}/sub`, 'to/sub'),
      fs.rename(`${path}/sub/f`, 'to/f'),
      fs.rename(`${path}/sub`, `${path}/near`),
      fs.list('to'),
    ]),
  )
})

t.test('renames that are refused', { skip: skipParity }, async t => {
  const lower: Layer = { 'd/e/f': 'f', g: 'g', h: link('g'), 'empty/': dir() }
  await compare(t, 'refused', { lower: [lower], options: { redirectDir: 'on' } }, async fs => [
    await fs.rename('none', 'x'),
    await fs.rename('g', 'none/x'),
    await fs.rename('g', 'g/x'),
    await fs.rename('d', 'd/e/x'),
    await fs.rename('d/e', 'd'),
    await fs.rename('g', 'x', RENAME.WHITEOUT),
    await fs.rename('g', 'x', 8),
    await fs.rename('g', 'x', RENAME.NOREPLACE | RENAME.EXCHANGE),
    await fs.rename('g', 'n'.repeat(256)),
    await fs.rename('g', 'n'.repeat(255)),
    await fs.rename('n'.repeat(255), 'g'),
    await fs.rename('g', 'd'),
    await fs.rename('d', 'g'),
    await fs.rename('empty', 'd'),
    await fs.rename('g', 'h'),
    await fs.rename('h', 'g', RENAME.EXCHANGE),
    await fs.rename('g', 'h', RENAME.NOREPLACE),
    await fs.rename('g', 'g'),
    await fs.rename('d', 'd'),
    await fs.rename('d', 'd/e', RENAME.EXCHANGE),
    await fs.list(''),
  ])
})

t.test('a rename creates no name of a whiteout', async t => {
  const where = unionDirectories(t, { lower: [{ f: 'f', g: 'g' }] })
  const union = open(t, optionsOf(where, { whiteout: 'wh' }))
  t.equal(await union.rename('f', '.wh.g'), -E.EINVAL)
  t.equal(await union.rename('f', '.wh..wh..opq'), -E.EINVAL)
  t.strictSame(await union.list(''), ['f', 'g'])
  t.strictSame(readdirSync(where.upper), [])
})

t.test('open files are moved with their names', async t => {
  const where = unionDirectories(t, {
    lower: [{ 'a/f': 'lower', 'b/g': 'other' }],
    upper: { 'b/u': 'upper' },
  })
  const union = open(t, optionsOf(where, { redirectDir: 'on' }))
  const reader = (await union.open('a/f', O.RDONLY)) as Opened
  const victim = (await union.open('b/g', O.RDONLY)) as Opened
  const upper = (await union.open('b/u', O.RDWR)) as Opened
  t.equal(await union.rename('a/f', 'b/g'), 0)
  t.equal(union.readAll(victim.fh), 'other', 'what was replaced can still be read')
  t.equal(await union.write('b/g', 'LOWER'), 5)
  t.equal(union.readAll(reader.fh), 'LOWER', 'and what was renamed shows what is written by name')
  t.equal(await union.rename('b', 'a/b'), 0)
  t.equal(await union.rename('a/b/g', 'a/b/u'), 0)
  t.equal(union.pwrite(upper.fh, 'U'), 1)
  t.equal(union.readAll(upper.fh), 'Upper')
  t.equal(await union.read('a/b/u'), 'LOWER')
  for (const { fh } of [reader, victim, upper]) union.ops.release(fh)
  t.strictSame(union.ops.counts(), NOTHING_OPEN)
  t.strictSame(union.loggedMessages, [])
})

t.test('a target that can’t be replaced is released', { skip: skipUnions }, async t => {
  const upper = { 'from/f': 'f', 'from/d/': dir(), 'into/f': 'g', 'into/d/': dir() }
  const { u, ops, find, close } = stateOf(t, optionsOf(unionDirectories(t, { lower: [{}], upper })))
  const from = find('from')
  const into = find('into')
  for (const directory of [from, into]) directory.lookups++
  for (const name of ['f', 'd']) {
    const target = find(`into/${name}`)
    const get = u.fds.get.bind(u.fds)
    target.lookups++
    u.fds.get = real => (real === from.upperDir && target.orphanFd >= 0 ? -E.EMFILE : get(real))
    t.equal(ops.rename(from.id, name, into.id, name, 0), -E.EMFILE, name)
    u.fds.get = get
    t.equal(target.orphanFd, -1, 'its descriptor is closed')
    t.equal(ops.rename(from.id, name, into.id, name, 0), 0)
  }
  close()
})

import { readFileSync, writeFileSync } from 'node:fs'

import t from 'tap'

import { copyUp } from '../../../../src/overlay/copy-up/copy-up.js'
import type { Explanation } from '../../../../src/overlay/namei/which.js'
import {
  dir,
  file,
  link,
  withOverlayXattrs,
  opaque,
  unionDirectories,
  whiteout,
  type Spec,
} from '../../../helpers/layers.js'
import { optionsOf } from '../../../helpers/union.js'
import { skipUnions, stateOf, type State } from '../support.js'

const which = ({ ops }: State, path: string): Explanation => {
  const answer = ops.explain(path.split('/').filter(name => name !== ''))
  if ('error' in answer) throw new Error(`${path}: ${answer.error}`)
  return answer
}

/** A metadata-only copy. */
const copy = (text: string, redirect?: string): Spec =>
  file('\0'.repeat(text.length), {
    xattrs: {
      'trusted.overlay.metacopy': '',
      ...(redirect === undefined ? {} : { 'trusted.overlay.redirect': redirect }),
    },
  })

t.test('which layer serves a name, and why', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    upper: {
      both: file('upper'),
      gone: whiteout,
      'd/new': file('new'),
      cut: opaque(),
      'cut/own': file('own'),
      moved: withOverlayXattrs({ redirect: '/old' }),
      near: withOverlayXattrs({ redirect: 'far' }),
      meta: copy('data', '/other'),
      'blocked/x': file('x'),
    },
    lower: [
      {
        both: file('one'),
        'd/gone': whiteout,
        'd/one': file('one'),
        blocked: file('no directory'),
        'far/a': file('a'),
      },
      {
        two: file('two'),
        gone: file('gone'),
        'd/gone': dir(),
        'd/one': file('two'),
        'd/two': file('two'),
        'cut/low': file('low'),
        'old/f': file('moved'),
        other: file('data'),
        'far/b': file('b'),
        'blocked/y': file('y'),
      },
    ],
  })
  const state = stateOf(t, optionsOf(where))
  const { u } = state
  const [one, two] = where.lower as [string, string]
  const before = u.nodes.size
  const found = (path: string): string[] => which(state, path).steps.map(step => step.found)

  t.match(which(state, '/both'), {
    path: '/both',
    whole: true,
    type: 'file',
    served: [{ layer: 0, path: `${where.upper}/both` }],
    data: null,
  })
  t.strictSame(found('/both'), ['file', 'hidden', 'hidden'])
  t.match(which(state, '/two').served, [{ layer: 2, path: `${two}/two` }])
  t.strictSame(found('/two'), ['nothing', 'nothing', 'file'])

  t.match(which(state, '/gone'), { type: null, served: [] })
  t.strictSame(found('/gone'), ['whiteout', 'hidden', 'hidden'])
  t.strictSame(found('/d/gone'), ['nothing', 'whiteout', 'hidden'])
  t.match(which(state, '/gone/below'), { path: '/gone', whole: false, type: null })
  t.match(which(state, '/both/below'), { path: '/both', whole: false, type: 'file' })
  t.strictSame(found('/none'), ['nothing', 'nothing', 'nothing'])

  const directories = which(state, '/d')
  t.equal(directories.type, 'directory')
  t.strictSame(directories.served, [
    { layer: 0, path: `${where.upper}/d` },
    { layer: 1, path: `${one}/d` },
    { layer: 2, path: `${two}/d` },
  ])
  t.strictSame(found('/d/one'), ['nothing', 'file', 'hidden'])

  const cut = which(state, '/cut')
  t.strictSame(cut.served, [{ layer: 0, path: `${where.upper}/cut` }])
  t.match(cut.steps, [
    { found: 'directory', opaque: true },
    { found: 'hidden' },
    { found: 'hidden' },
  ])
  t.strictSame(found('/cut/low'), ['nothing', 'unreached', 'unreached'])
  t.strictSame(which(state, '/blocked').served, [{ layer: 0, path: `${where.upper}/blocked` }])
  t.strictSame(found('/blocked'), ['directory', 'hidden', 'hidden'])

  const moved = which(state, '/moved')
  t.match(moved.steps[0], { found: 'directory', redirect: '/old' })
  t.strictSame(moved.served, [
    { layer: 0, path: `${where.upper}/moved` },
    { layer: 2, path: `${two}/old` },
  ])
  t.strictSame(which(state, '/moved/f').served, [{ layer: 2, path: `${two}/old/f` }])
  t.match(which(state, '/near').steps, [{ redirect: 'far' }, { path: `${one}/far` }, {}])
  t.strictSame(which(state, '/near/b').served, [{ layer: 2, path: `${two}/far/b` }])

  t.match(which(state, '/meta'), {
    served: [{ layer: 0, path: `${where.upper}/meta` }],
    data: { layer: 2, path: `${two}/other` },
  })
  t.match(which(state, '/'), {
    path: '/',
    type: 'directory',
    served: [{ layer: 0 }, { layer: 1 }, { layer: 2 }],
    steps: [],
  })
  t.equal(u.nodes.size, before, 'no node stays')
  // A node that the kernel knows stays unchanged.
  const node = state.find('/d/one')
  node.lookups = 1
  const known = u.nodes.size
  which(state, '/d/one')
  which(state, '/d/two')
  t.equal(u.nodes.size, known)
  t.equal(state.find('/d/one'), node)
  node.lookups = 0
  u.nodes.release(node)
})

t.test('a copy with several names', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    lower: [{ a: file('text'), 'd/b': link('a'), [Buffer.from('ü \n').latin1Slice()]: file('x') }],
  })
  const state = stateOf(t, optionsOf(where, { fsync: false }))
  t.match(which(state, Buffer.from('/ü \n').latin1Slice()), {
    path: '/ü \n',
    served: [{ layer: 1, path: `${where.lower[0]}/ü \n` }],
  })
  t.equal(copyUp(state.u, state.find('/a')), 0)
  const [served] = which(state, '/d/b').served
  t.equal(served?.layer, 0)
  writeFileSync(served?.path ?? '', 'changed')
  t.equal(readFileSync(`${where.upper}/a`, 'utf8'), 'changed')
})

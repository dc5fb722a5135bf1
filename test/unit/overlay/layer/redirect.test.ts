import t from 'tap'

import type { RealDir } from '../../../../src/overlay/layer/layer.js'
import { followRedirect, walk } from '../../../../src/overlay/layer/redirect.js'
import {
  withOverlayXattrs,
  opaque,
  unionDirectories,
  whiteout,
  type Layer,
} from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { readOnlyOptions } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

/** The location of a real directory: `LAYER:PATH`. */
const placeOf = (dir: RealDir): string => {
  const names: string[] = []
  for (let at: RealDir = dir; at.parent !== null; at = at.parent) names.unshift(at.name)
  return `${dir.layer.index}:${names.join('/')}`
}

const follow = (t: Parameters<typeof stateOf>[0], lower: Layer[], redirect: string, above = 0) => {
  const where = unionDirectories(t, { lower })
  const { u } = stateOf(t, readOnlyOptions(where))
  const dirs: RealDir[] = []
  const ino = followRedirect(u, redirect, above, dirs)
  if (dirs[0] !== undefined) {
    const { path, index } = dirs[0].layer
    const real = sys.lstat(
      sys.AT_FDCWD,
      `${path}/${placeOf(dirs[0]).slice(String(index).length + 1)}`,
    )
    t.equal(ino, Number((real as sys.Stat).ino), 'the number of the first')
  } else t.equal(ino, null)
  return dirs.map(placeOf)
}

const cases: Record<string, [lower: Layer[], above: number, found: string[]]> = {
  'in every layer that has it': [
    [{ 'a/b/': '' }, { a: 'no directory' }, { 'a/b/': '' }],
    0,
    ['1:a/b'],
  ],
  'past one that knows nothing of it': [[{}, { 'a/x/': '' }, { 'a/b/': '' }], 0, ['3:a/b']],
  'only below': [[{ 'a/b/': '' }, { 'a/b/': '' }, { 'a/b/': '' }], 2, ['3:a/b']],
  'not below an opaque directory': [[{ 'a/b/': opaque() }, { 'a/b/': '' }], 0, ['1:a/b']],
  'not below an opaque directory on the way': [
    [{ 'a/': opaque(), 'a/b/': '' }, { 'a/b/': '' }],
    0,
    ['1:a/b'],
  ],
  'not below a whiteout': [[{ 'a/b': whiteout }, { 'a/b/': '' }], 0, []],
  'where a further redirect of the directory leads': [
    [{ 'a/b/': withOverlayXattrs({ redirect: '/c/d' }) }, { 'a/b/': '', 'c/d/': '' }],
    0,
    ['1:a/b', '2:c/d'],
  ],
  'where a directory on the way was called otherwise': [
    [
      { 'a/': withOverlayXattrs({ redirect: 'z\xff' }), 'a/b/': '' },
      { 'a/b/': '', 'z\xff/b/': '' },
    ],
    0,
    ['1:a/b', '2:z\xff/b'],
  ],
  'past an opaque directory from which an absolute redirect leads out': [
    [
      { 'a/': opaque(), 'a/b/': withOverlayXattrs({ redirect: '/c' }) },
      { 'a/b/': '', 'c/': '' },
    ],
    0,
    ['1:a/b', '2:c'],
  ],
  'not where a redirect leads nowhere': [
    [{ 'a/b/': withOverlayXattrs({ redirect: '/none' }) }, { 'a/b/': '' }],
    0,
    ['1:a/b'],
  ],
}

for (const [name, [lower, above, found]] of Object.entries(cases))
  t.test(`a path is found ${name}`, { skip: skipUnions }, async t => {
    t.strictSame(follow(t, lower, '/a/b', above), found)
  })

t.test('an invalid redirect ends the walk', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    lower: [{ 'a/': withOverlayXattrs({ redirect: '..' }) }, {}],
  })
  const { u } = stateOf(t, readOnlyOptions(where))
  t.strictSame(walk(u, u.lowers[0]!, ['a']), { dir: null, stop: true, below: ['a'] })
  const root = walk(u, u.lowers[0]!, [])
  t.equal(root.dir, u.lowers[0]!.root, 'nothing to walk')
})

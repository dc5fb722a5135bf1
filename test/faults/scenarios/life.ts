/** Opening and closing a union. */

import * as fs from 'node:fs'
import { join } from 'node:path'
import type { Scenario } from '../scenario.js'

const inoOf = (path: string): bigint => fs.lstatSync(path, { bigint: true }).ino

export const life: readonly Scenario[] = [
  { name: 'the first mount', run: null },
  { name: 'a mount after another', prepare: union => union.chmod('h1', 0o600), run: null },
  { name: 'the first volatile mount', options: { volatile: true }, run: null },
  {
    name: 'a mount after an unfinished operation',
    prepare: union => union.chmod('h1', 0o600),
    litter: ({ work }) => {
      fs.mkdirSync(join(work, 'work/#1/in'), { recursive: true })
      fs.writeFileSync(join(work, 'work/#1/in/file'), '')
      fs.writeFileSync(join(work, 'work/#2'), 'half a copy')
      fs.chmodSync(join(work, 'work/#1/in'), 0o500)
    },
    run: null,
  },
  {
    name: 'a mount after an unrestored owner access',
    prepare: union => union.chmod('uf', 0o644),
    litter: ({ upper, work }) => {
      const path = join(upper, 'uro')
      fs.chmodSync(path, 0o755)
      fs.symlinkSync(`555 755 ${inoOf(path)} uro`, join(work, 'work/#lent.1'))
    },
    run: null,
  },
  {
    name: 'a mount after half a move',
    prepare: union => union.rename('only', 'moved'),
    litter: ({ upper, work }) => {
      fs.rmSync(join(upper, 'only'))
      fs.symlinkSync('hide 0 only', join(work, 'work/#lent.1'))
    },
    run: null,
  },
  {
    name: 'the end of a mount',
    begin: union => union.chmod('f', 0o600),
    run: union => {
      union.close()
      return Promise.resolve(0)
    },
  },
]

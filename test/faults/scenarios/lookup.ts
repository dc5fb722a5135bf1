/** Lookups and attributes. */

import { StatFsOut } from '../../../src/overlay/ops.js'
import { E } from '../../../src/sys/errno.js'
import * as sys from '../../helpers/syscalls.js'
import type { UnionFs } from '../../helpers/union.js'
import { listAll, numberOf, type Scenario } from '../scenario.js'

export const lookup: readonly Scenario[] = [
  ...['d/sub/y', 'm/a', 'm/b', 'o/f', 'h1', 'f', 's', 'ro/g', 'e'].map(path => ({
    name: `lookup ${path}`,
    run: async (fs: UnionFs) => Math.min(0, await numberOf(fs, path)),
  })),
  ...['d/nothing', 'm/w', 'gone', 'e/1', 'o/nothing', 'ud/nothing'].map(path => ({
    name: `lookup of nothing, ${path}`,
    run: async (fs: UnionFs) => {
      const found = await numberOf(fs, path)
      return found === -E.ENOENT ? 'nothing' : found
    },
  })),
  ...['m/a', 'f', 'h1', 'd', 'm', 'uf'].map(path => ({
    name: `getattr ${path}`,
    run: async (fs: UnionFs) => told(await fs.stat(path)),
  })),
  { name: 'readlink', run: fs => fs.readlink('s') },
  { name: 'readdir', run: fs => listAll(fs, 'm', false) },
  { name: 'readdirplus', run: fs => listAll(fs, 'm', true) },
  { name: 'readdirplus of the root', run: fs => listAll(fs, '', true) },
  { name: 'statfs', run: async fs => fs.ops.statfs(new StatFsOut()) },
]

const { S } = sys

/** The part of a stat that is the same in each run. */
const told = (stat: sys.Stat | number): number | string =>
  typeof stat === 'number'
    ? stat
    : [stat.mode, stat.nlink, stat.uid, stat.gid, stat.mtime, stat.rdev]
        .concat((stat.mode & S.IFMT) === S.IFDIR ? [] : [stat.size])
        .join()

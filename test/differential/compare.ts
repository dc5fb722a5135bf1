/** The differences between two outcomes of one call, or between two trees. */

import type { Difference, Tree, TreeRules } from '../helpers/tree.js'
import { S } from '../helpers/syscalls.js'
import { diffStats, diffTrees } from '../helpers/tree.js'
import { constants } from 'node:os'
import type { Action } from './calls.js'
import type { Outcome } from './perform.js'
import type { Before, Mismatch } from './tolerated.js'
import { tolerated } from './tolerated.js'

const ERRNO_NAMES = new Map(Object.entries(constants.errno).map(([name, value]) => [value, name]))
ERRNO_NAMES.set(11, 'EAGAIN')
ERRNO_NAMES.set(95, 'EOPNOTSUPP')

export const showResult = (ret: number | bigint): string =>
  ret < 0 ? (ERRNO_NAMES.get(Number(-ret)) ?? `errno ${-ret}`) : String(ret)

export const compareOutcomes = (
  action: Action,
  expected: Outcome,
  got: Outcome,
  rules: TreeRules,
  before: Before,
): Mismatch[] => {
  const out: Mismatch[] = []
  const differ = (field: string, a: string, b: string): void => {
    if (a === b) return
    const mismatch = { action, field, expected: a, got: b, before }
    if (!tolerated(mismatch)) out.push(mismatch)
  }
  differ('result', showResult(expected.ret), showResult(got.ret))
  for (const field of new Set([...Object.keys(expected.fields), ...Object.keys(got.fields)]))
    differ(field, expected.fields[field] ?? '(nothing)', got.fields[field] ?? '(nothing)')
  for (const [name, stat] of Object.entries(expected.stats)) {
    const other = got.stats[name]
    if (other === undefined) continue
    const removedDirectory = (other.mode & S.IFMT) === S.IFDIR && other.nlink === 0
    for (const d of diffStats(stat, other, rules))
      if (d.field !== 'mtime' || !removedDirectory)
        differ(`${d.field} of ${name}`, d.expected, d.got)
  }
  return out
}

const fromDifference = (d: Difference, action: Action | null, when: string): Mismatch => ({
  action,
  field: `${d.field}${when}`,
  expected: d.expected,
  got: `${d.got} (${JSON.stringify(d.path)})`,
})

export const compareTrees = (
  action: Action | null,
  expected: Tree,
  got: Tree,
  rules: TreeRules,
  when: string,
  before?: Before,
): Mismatch[] =>
  diffTrees(expected, got, rules)
    .map(d => ({ ...fromDifference(d, action, when), ...(before && { before }) }))
    .filter(m => !tolerated(m))

/** The inode numbers that have changed. */
export const compareInos = (action: Action | null, before: Tree, after: Tree): Mismatch[] => {
  const out: Mismatch[] = []
  for (const [path, node] of before.nodes) {
    const now = after.nodes.get(path)
    if (now !== undefined && now.stat.ino !== node.stat.ino)
      out.push({
        action,
        field: 'inode number after a remount',
        expected: String(node.stat.ino),
        got: `${now.stat.ino} (${JSON.stringify(path)})`,
      })
  }
  return out.filter(m => !tolerated(m))
}

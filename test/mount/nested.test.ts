/**
 * Nested unions. A union whose layers lie in another union must give the same results as one on
 * plain directories: names, contents and link counts, before and after both have been mounted
 * again. Each pair runs test/fixtures/nested.sh in a mount namespace of its own.
 */

import { spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { outcomeOf, PROGRAM, skipMounts, type Outcome } from '../helpers/mount.js'

const SCRIPT = fileURLToPath(new URL('../fixtures/nested.sh', import.meta.url))
const REFUSED = 77

type Kind = 'plain' | 'tsoverlay' | 'fuse-overlayfs' | 'kernel'
/** The layers of the inner union that lie in the outer one: all of them, or only the lower one. */
type Where = 'all' | 'lower'
type Pair = [outer: Kind, inner: Kind, where: Where, outerOptions?: string, innerOptions?: string]

/** Runs a program in new namespaces. Its servers end with the namespaces. */
const unshared = (userNamespace: boolean, ...command: string[]): Promise<Outcome> => {
  const namespace = userNamespace ? ['-U', '-r', '-m'] : ['-m']
  const args = [...namespace, '-p', '-f', '--mount-proc', ...command]
  const child = spawn('/usr/bin/env', ['-u', 'NODE_OPTIONS', 'unshare', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 120_000,
    killSignal: 'SIGKILL',
  })
  return outcomeOf(child)
}

const run = (pair: Pair, userNamespace: boolean): Promise<Outcome> =>
  unshared(userNamespace, 'bash', SCRIPT, PROGRAM, ...pair.map(String))

const has = (program: string): boolean => spawnSync(program, ['--version']).status === 0
const noFuseOverlayfs =
  !existsSync('/usr/bin/fuse-overlayfs') &&
  !has('fuse-overlayfs') &&
  'fuse-overlayfs is not installed'

const PAIRS: Pair[] = [
  ['tsoverlay', 'tsoverlay', 'all'],
  ['tsoverlay', 'tsoverlay', 'all', 'io=passthrough', 'io=passthrough'],
  ['tsoverlay', 'tsoverlay', 'all', 'userxattr,xattr_permissions=2', 'whiteout=xattr'],
  ['tsoverlay', 'tsoverlay', 'all', 'noxattrs=1'],
  ['tsoverlay', 'tsoverlay', 'lower'],
  ['tsoverlay', 'kernel', 'lower'],
  ['tsoverlay', 'kernel', 'all'],
  ['kernel', 'tsoverlay', 'all'],
  ['kernel', 'tsoverlay', 'lower'],
  ['fuse-overlayfs', 'tsoverlay', 'all'],
  ['fuse-overlayfs', 'tsoverlay', 'lower'],
  ['tsoverlay', 'fuse-overlayfs', 'all'],
  ['tsoverlay', 'fuse-overlayfs', 'lower'],
]
/**
 * Options that need passthrough or root. `isForAll` selects the pairs that also run in a user
 * namespace.
 */
const ROOTS = /passthrough|xattr_permissions|userxattr|noxattrs/
const isForAll = ([, inner, where, ...options]: Pair): boolean =>
  !ROOTS.test(options.join()) && (where === 'all' || inner === 'kernel')

/**
 * The references for correct results, on plain directories: kernel overlayfs with its index for
 * tsoverlay, and each other union for itself. The kernel has no index if the lower layer lies in a
 * FUSE file system, or in a user namespace.
 */
const REFERENCES: Record<Exclude<Kind, 'plain'>, [pair: Pair, userNamespace: boolean][]> = {
  tsoverlay: [
    [['plain', 'kernel', 'lower', '', 'index=on'], false],
    [['plain', 'kernel', 'lower', '', 'index=on'], false],
  ],
  kernel: [
    [['plain', 'kernel', 'lower', '', 'index=off'], false],
    [['plain', 'kernel', 'lower'], true],
  ],
  'fuse-overlayfs': [
    [['plain', 'fuse-overlayfs', 'lower'], false],
    [['plain', 'fuse-overlayfs', 'lower'], true],
  ],
}
const done = new Map<string, Promise<Outcome>>()
const referenceOf = (inner: Kind, userNamespace: boolean): Promise<Outcome> => {
  if (inner === 'plain') throw new TypeError(inner)
  const [pair, inUserNamespace] = REFERENCES[inner][userNamespace ? 1 : 0] as [Pair, boolean]
  const key = [...pair, inUserNamespace].join()
  const known = done.get(key) ?? run(pair, inUserNamespace)
  done.set(key, known)
  return known
}

/**
 * Removes output about files with several links. fuse-overlayfs shows the number of names that it
 * knows, which may be one; a union on top of it then finds no other names.
 */
const withoutLinks = (text: string): string =>
  text
    .split('\n')
    .filter(
      line =>
        !/f5|linked|links|l[1-5]\b|moved|^(more|still|last)|^\d+[acd]|^\d+,|^---$|^the same/.test(
          line,
        ),
    )
    .join('\n')

/** Removes output about xattrs, which a union with `noxattrs` does not have. */
const withoutAttributes = (text: string): string =>
  text
    .split('\n')
    .filter(line => !/user\.mine|file: new|^getfattr|^$/.test(line))
    .join('\n')

for (const userNamespace of [false, true]) {
  const as = userNamespace ? 'in a user namespace' : 'as root'
  const pairs = PAIRS.filter(pair => !userNamespace || isForAll(pair))
  t.test(as, { skip: skipMounts, timeout: 600_000 }, async t => {
    const right = await referenceOf('tsoverlay', userNamespace)
    if (right.status !== 0) return t.comment(`no kernel overlayfs: ${right.stderr}`)
    t.match(right.stdout, /what lies below is untouched/)
    t.match(right.stdout, /the same after both were mounted anew/)
    for (const pair of pairs) {
      const [outer, inner, where, outerOptions = ''] = pair
      const name = `${inner} in ${outer}, ${where}, ${pair.slice(3).join('; ')}`
      const skip = pair.includes('fuse-overlayfs') && noFuseOverlayfs
      await t.test(name, { skip }, async t => {
        const outcome = await run(pair, userNamespace)
        if (outcome.status === REFUSED && pair.slice(0, 2).some(kind => kind !== 'tsoverlay')) {
          const refusing = outcome.stderr.trim().split('\n').at(-1) ?? ''
          t.match(refusing, /^(kernel|fuse-overlayfs) can't/, 'tsoverlay is mounted')
          t.pass('refused', { skip: refusing })
          return
        }
        t.equal(outcome.status, 0, outcome.stderr)
        const reference = await referenceOf(inner, userNamespace)
        const bare = outerOptions.includes('noxattrs')
        const [expected, got] = [reference.stdout, outcome.stdout].map(given => {
          const text = bare ? withoutAttributes(given) : given
          // Without xattrs there is no index.
          return bare || pair.includes('fuse-overlayfs') ? withoutLinks(text) : text
        })
        t.equal(got, expected)
      })
    }
  })
}

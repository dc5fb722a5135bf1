import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'

import t from 'tap'

import {
  difference,
  filtersAreShared,
  identityOf,
  directoryKey,
} from '../../../src/resident/identity.js'

/** A process that waits, started through another program. */
const waiting = async (...through: string[]) => {
  const args = ['-c', 'echo; read -r _']
  const child = spawn('env', [...through, 'sh', ...args], { stdio: ['pipe', 'pipe', 'ignore'] })
  await once(child.stdout, 'data')
  return child
}

t.test('a child is like its parent', async t => {
  const child = await waiting()
  const own = identityOf('self')
  const other = identityOf(child.pid ?? 0)
  t.not(own, undefined)
  t.equal(own && other && difference(own, other), undefined)
  child.stdin.end()
})

const unlike = [
  ['NoNewPrivs', 'setpriv', '--no-new-privs'],
  ['Max file size', 'prlimit', '--fsize=1000000'],
  [undefined, 'prlimit', '--nproc=30000'],
  [undefined, 'prlimit', '--nofile=2000'],
] as const

for (const [what, program, option] of unlike) {
  const through = [program, option]
  const skip = spawnSync(program, ['--version']).status !== 0 && `needs ${program}`
  t.test(through.join(' '), { skip }, async t => {
    const child = await waiting(...through)
    const own = identityOf('self')
    const other = identityOf(child.pid ?? 0)
    t.equal(own && other && difference(own, other), what)
    child.stdin.end()
  })
}

const of = (Seccomp: string, Seccomp_filters: string) =>
  new Map(Object.entries({ Seccomp, Seccomp_filters }))

t.test('as many seccomp filters as process 1 are the same ones', async t => {
  const init = 'Seccomp:\t2\nSeccomp_filters:\t1\nSpeculation_Store_Bypass:\tvulnerable\n'
  t.ok(filtersAreShared(of('0', '0'), init), 'none at all')
  t.ok(filtersAreShared(of('', ''), init), 'a kernel without them')
  t.ok(filtersAreShared(of('2', '1'), init))
  t.notOk(filtersAreShared(of('2', '2'), init))
  t.notOk(filtersAreShared(of('2', '1'), 'Seccomp:\t0\nSeccomp_filters:\t0\n'))
  t.notOk(filtersAreShared(of('1', '0'), 'Seccomp:\t1\n'))
  t.notOk(filtersAreShared(of('2', ''), 'Seccomp:\t2\n'), 'a kernel that does not count')
  t.notOk(filtersAreShared(of('2', '1'), ''), 'process 1 is hidden')
})

t.test('a process that is gone has none', async t => {
  t.equal(identityOf(4_194_304), undefined)
})

t.test('a place is a mount and an inode', async t => {
  t.match(directoryKey('/'), /^\d+:\d+:\d+$/)
  t.equal(directoryKey('/proc/self/root'), directoryKey('/'))
  t.not(directoryKey('/proc'), directoryKey('/'))
})

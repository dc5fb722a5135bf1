import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'

import t from 'tap'

import { difference, identityOf, placeOf } from '../../../src/server/identity.js'

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
  ['limits', 'prlimit', '--core=12345'],
  ['limits', 'prlimit', '--fsize=1000000'],
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

t.test('a process that is gone has none', async t => {
  t.equal(identityOf(4_194_304), undefined)
})

t.test('a place is a mount and an inode', async t => {
  t.match(placeOf('/'), /^\d+:\d+:\d+$/)
  t.equal(placeOf('/proc/self/root'), placeOf('/'))
  t.not(placeOf('/proc'), placeOf('/'))
})

import { statSync } from 'node:fs'

import t from 'tap'

import type { SyscallHook } from '../../../../src/sys/libc.js'
import { dir, file, unionDirectories } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'

const EACCES = 13
/** The next openat(2) fails with EACCES, as for an unprivileged user. */
let refuse = false
const hook: SyscallHook = (name, call, failWith) => {
  if (name !== 'openat') return call
  const run = call as unknown as (...args: number[]) => number
  const wrapped = (...args: number[]): number => {
    if (!refuse) return run(...args)
    refuse = false
    return failWith(EACCES)
  }
  return Object.assign(wrapped, { async: call.async }) as unknown as typeof call
}
Object.assign(globalThis, { [Symbol.for('tsoverlay.syscalls')]: hook })

// The system call bindings must be loaded after the hook is set.
const { openReal } = await import('../../../../src/overlay/file/handles.js')
const { close } = await import('../../../../src/sys/io.js')
const { optionsOf } = await import('../../../helpers/union.js')
const { skipUnions, stateOf } = await import('../support.js')

t.test(
  'the kernel is notified of the ctime that a temporary mode changes',
  { skip: skipUnions },
  async t => {
    const where = unionDirectories(t, {
      lower: [{}],
      upper: { f: file('f', { mode: 0o200 }), 'd/': dir({ mode: 0o300 }) },
    })
    const { u, ops, find, notified } = stateOf(t, optionsOf(where))
    const read = {
      f: () => close(openReal(u, find('f'), sys.O.RDONLY)),
      d: () => ops.readdir(find('d').id, 0, { add: () => true }),
    }
    for (const name of ['f', 'd'] as const) {
      const node = find(name)
      const state = () => statSync(`${where.upper}/${name}`, { bigint: true })
      node.lookups++
      const before = state()
      refuse = true
      t.equal(read[name](), 0, name)
      t.notOk(refuse)
      t.not(state().ctimeNs, before.ctimeNs)
      t.equal(state().mode, before.mode)
      t.ok(notified.includes(node.id))
    }
  },
)

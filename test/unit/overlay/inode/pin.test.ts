import { chmodSync, cpSync, renameSync } from 'node:fs'

import t from 'tap'

import type { SyscallHook } from '../../../../src/sys/libc.js'
import { dir, unionDirectories } from '../../../helpers/layers.js'

/** The number of next openat(2) calls that fail with EMFILE. */
let refused = 0
const EMFILE = 24
const ESTALE = 116
const hook: SyscallHook = (name, call, failWith) => {
  if (name !== 'openat') return call
  const run = call as unknown as (...args: number[]) => number
  const wrapped = (...args: number[]): number =>
    refused > 0 && refused-- > 0 ? failWith(EMFILE) : run(...args)
  return Object.assign(wrapped, { async: call.async }) as unknown as typeof call
}
Object.assign(globalThis, { [Symbol.for('tsoverlay.syscalls')]: hook })

// The system call bindings must be loaded after the hook is set.
const { pin, pinToRead, unpin } = await import('../../../../src/overlay/inode/pin.js')
const { Entry } = await import('../../../../src/overlay/ops.js')
const { Place } = await import('../../../../src/overlay/inode/place.js')
const { optionsOf } = await import('../../../helpers/union.js')
const { skipUnions, stateOf } = await import('../support.js')

t.test('directory descriptors are closed for that of an object', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    lower: [{}],
    upper: { 'open/f': 'f', 'a/b/f': '', 'c/f': '' },
  })
  chmodSync(`${where.upper}/open`, 0o777)
  const { u, find } = stateOf(t, optionsOf(where))
  const node = find('open/f')
  for (const path of ['a/b/f', 'c/f']) find(path)
  const place = new Place()
  for (const by of [pin, pinToRead]) {
    refused = 1
    t.equal(by(u, node, place), 0, by.name)
    t.ok(place.pinned)
    unpin(place)
    refused = 2
    t.equal(by(u, node, place), -EMFILE, 'there is none to be had')
    t.notOk(place.pinned)
    unpin(place)
  }
  refused = 0
})

t.test('the identity of each merged directory is known', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    lower: [{ 'd/g': '' }, { 'd/f': 'own', 'other/f': 'another' }, { 'e/h': '' }],
    upper: { 'moved/': dir({ xattrs: { 'trusted.overlay.redirect': '/e' } }) },
  })
  const { u, ops, find } = stateOf(t, optionsOf(where))
  const place = new Place()
  const out = new Entry()
  for (const [path, layer, name] of [
    ['d/f', 1, 'd'],
    ['moved/h', 2, 'e'],
  ] as const) {
    const file = find(path)
    const directory = file.parent!
    file.lookups++
    directory.lookups++
    t.equal(pinToRead(u, file, place), 0, path)
    unpin(place)
    const part = directory.dirs[1]!
    u.fds.drop(part)
    const lower = where.lower[layer]
    renameSync(`${lower}/${name}`, `${lower}/away`)
    cpSync(`${lower}/away`, `${lower}/${name}`, { recursive: true })
    t.equal(pinToRead(u, file, place), -ESTALE, 'another directory has its place')
    unpin(place)
    t.equal(ops.lookup(directory.id, file.name, out), -ESTALE, 'so it has nothing that was found')
    t.equal(ops.getattr(directory.id, -1, out.attr), -ESTALE)
    t.equal(ops.lookup(1, directory.name, out), 0)
    t.not(out.nodeId, directory.id, 'the next lookup finds the new object')
    t.equal(ops.lookup(out.nodeId, file.name, out), 0)
  }
})

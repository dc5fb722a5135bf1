import * as fs from 'node:fs'

import t from 'tap'

import { MountError } from '../../src/errors.js'
import type { Server } from '../../src/fuse/serve.js'
import { checkDevice, handleOf, mount } from '../../src/mount.js'

/** A server that notes what it is asked. */
class FakeServer implements Server {
  readonly mountpoint = '/m'
  readonly io = 'cached'
  readonly asked: unknown[] = []
  busy = false
  end: (error?: Error) => void = () => {}
  readonly closed = new Promise<void>((resolve, reject) => {
    this.end = error => (error === undefined ? resolve() : reject(error))
  })
  async unmount(options?: { lazy?: boolean }): Promise<void> {
    this.asked.push(options)
    if (this.busy && options?.lazy !== true) throw new MountError('busy', { code: 'EBUSY' })
    this.end()
  }
  abandon(): void {
    this.asked.push('abandon')
  }
  async stats(): Promise<Record<string, number>> {
    return { requests: 1 }
  }
}

t.test('the handle', async t => {
  t.test('passes on what the server says', async t => {
    const server = new FakeServer()
    const handle = handleOf(server)
    t.match(handle, { mountpoint: '/m', io: 'cached' })
    t.same(await handle.stats(), { requests: 1 })
    await handle.unmount()
    await handle.closed
    t.same(server.asked, [{ lazy: false }])
    await handle.unmount()
    t.equal(server.asked.length, 1, 'nothing is asked of a server that has ended')
  })

  t.test('await using', async t => {
    const server = new FakeServer()
    {
      await using handle = handleOf(server)
      t.equal(handle.mountpoint, '/m')
      t.same(server.asked, [])
    }
    t.same(server.asked, [{ lazy: false }])
  })

  t.test('await using, busy', async t => {
    const server = new FakeServer()
    server.busy = true
    {
      await using _ = handleOf(server)
    }
    t.same(server.asked, [{ lazy: false }, { lazy: true }])
  })

  t.test('a server that dies is told to whoever asks, and to nobody else', async t => {
    const server = new FakeServer()
    const handle = handleOf(server)
    server.end(new Error('died'))
    await new Promise(done => setTimeout(done, 10)) // an unhandled rejection would fail the test
    await t.rejects(handle.closed, { message: 'died' })
  })
})

t.test('arguments', async t => {
  const good = { lower: '/', mountpoint: '/' }
  for (const [change, option] of [
    [{ lower: '' }, 'lower'],
    [{ lower: ['/', 5 as unknown as string] }, 'lower'],
    [{ upper: 'a\0b' }, 'upper'],
    [{ work: '' }, 'work'],
    [{ mountpoint: undefined as unknown as string }, 'mountpoint'],
    [{ flags: ['loud' as 'ro'] }, 'flags'],
    [{ uidMapping: [{ disk: 0, shown: 0, length: 0 }] }, 'uidMapping'],
    [{ gidMapping: [{ disk: 0.5, shown: 0, length: 1 }] }, 'gidMapping'],
    [{ squashToUid: -1 }, 'squashToUid'],
    [{ squashToGid: Number.NaN }, 'squashToGid'],
    [{ xattrPermissions: 3 as 2 }, 'xattrPermissions'],
  ] as const) {
    await t.rejects(mount({ ...good, ...change }), { name: 'MountError', option, code: 'EINVAL' })
  }
})

t.test('the device', async t => {
  checkDevice('/dev/null')
  t.throws(() => checkDevice('/dev/none/fuse'), {
    name: 'MountError',
    path: '/dev/none/fuse',
    code: 'ENOENT',
    message: /offers no FUSE; .*modprobe fuse/,
  })
  t.throws(() => checkDevice('/'), { code: 'EISDIR', message: /can't be opened/ })
  if (process.geteuid?.() === 0) return
  const path = t.testdir({ fuse: '' })
  fs.chmodSync(`${path}/fuse`, 0)
  t.throws(() => checkDevice(`${path}/fuse`), { code: 'EACCES', message: /no right to use FUSE/ })
})

import * as fs from 'node:fs'

import t from 'tap'

import { MountError } from '../../../src/errors.js'
import type { Server } from '../../../src/server/transport.js'
import { checkMountOptions } from '../../../src/config/check-options.js'
import type { Mount } from '../../../src/server/live-mount.js'
import { checkDevice, handleOf, mount, type MountOptions } from '../../../src/server/mount.js'

/** A server that records its calls. */
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
  t.test('passes errors of the server on', async t => {
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

  t.test("a server's death rejects closed, without an unhandled rejection", async t => {
    const server = new FakeServer()
    const handle = handleOf(server)
    server.end(new Error('died'))
    await new Promise(done => setTimeout(done, 10)) // an unhandled rejection would fail the test
    await t.rejects(handle.closed, { message: 'died' })
  })
})

/** Options without type checks, as from JavaScript. */
const mountAs = (options: unknown) => mount(options as MountOptions)

t.test('arguments', async t => {
  const good = { lower: '/', mountpoint: '/' }
  const logger = { debug() {}, info() {}, warn() {}, error() {}, isLevelEnabled: () => false }
  for (const [change, option] of [
    [{ lower: '' }, 'lower'],
    [{ lower: [] }, 'lowerdir'],
    [{ lower: ['/', 5] }, 'lower'],
    [{ lower: new Set(['/']) }, 'lower'],
    [{ lower: undefined }, 'lower'],
    [{ upper: 'a\0b' }, 'upper'],
    [{ upper: null }, 'upper'],
    [{ upper: Buffer.from('/a') }, 'upper'],
    [{ work: '' }, 'work'],
    [{ mountpoint: undefined }, 'mountpoint'],
    [{ readOnly: 'no' }, 'readOnly'],
    [{ redirectDir: true }, 'redirectDir'],
    [{ whiteout: 'device' }, 'whiteout'],
    [{ index: 1 }, 'index'],
    [{ userxattr: 'auto' }, 'userxattr'],
    [{ volatile: 0 }, 'volatile'],
    [{ flags: ['loud'] }, 'flags'],
    [{ flags: 'ro' }, 'flags'],
    [{ flags: ['toString'] }, 'flags'],
    [{ uidMapping: [{ disk: 0, shown: 0, length: 0 }] }, 'uidMapping'],
    [{ uidMapping: [{ disk: 0, show: 0, length: 1 }] }, 'uidMapping'],
    [{ uidMapping: { disk: 0, shown: 0, length: 1 } }, 'uidMapping'],
    [{ gidMapping: [{ disk: 0.5, shown: 0, length: 1 }] }, 'gidMapping'],
    [{ gidMapping: '0:0:1' }, 'gidMapping'],
    [{ squashToUid: -1 }, 'squashToUid'],
    [{ squashToUid: '0' }, 'squashToUid'],
    [{ squashToGid: Number.NaN }, 'squashToGid'],
    [{ squashToGid: 0n }, 'squashToGid'],
    [{ squashToRoot: 'yes' }, 'squashToRoot'],
    [{ xattrPermissions: 3 }, 'xattrPermissions'],
    [{ xattrPermissions: '2' }, 'xattrPermissions'],
    [{ io: 'fast' }, 'io'],
    [{ noOpen: 1 }, 'noOpen'],
    [{ transport: 'nfs' }, 'transport'],
    [{ fsname: 5 }, 'fsname'],
    [{ subtype: '' }, 'subtype'],
    [{ allowOther: 'root' }, 'allowOther'],
    [{ timeout: '5' }, 'timeout'],
    [{ timeout: -1 }, 'timeout'],
    [{ timeout: Infinity }, 'timeout'],
    [{ logger: console.log }, 'logger'],
    [{ logger: { ...logger, warn: undefined } }, 'logger'],
    [{ logLevel: 'loud' }, 'logLevel'],
    [{ uperdir: '/u' }, 'uperdir'],
    [{ uperdir: undefined }, 'uperdir'],
    [{ lowerdir: '/a' }, 'lowerdir'],
    [{ metacopy: 'on' }, 'metacopy'],
    [{ ['__proto__']: 1 }, '__proto__'],
    [{ toString: 1 }, 'toString'],
  ] as const) {
    await t.rejects(
      mountAs({ ...good, ...change }),
      { name: 'MountError', option, code: 'EINVAL', message: new RegExp(`^${option}`) },
      option,
    )
  }
  for (const options of [undefined, null, '/m', 5, [good]]) {
    await t.rejects(mountAs(options), { name: 'MountError', option: 'options', code: 'EINVAL' })
  }
  checkMountOptions({ ...good, logger, timeout: 0, lower: ['/'], upper: undefined, flags: ['ro'] })
})

t.test('every key of MountOptions has a rule', async t => {
  const source = fs.readFileSync(new URL('../../../src/server/mount.ts', import.meta.url), 'utf8')
  const body = /interface MountOptions \{(.*?)^\}/ms.exec(source)?.[1] ?? ''
  const keys = [...body.matchAll(/^ {2}(\w+)\??:/gm)].map(([, key = '']) => key)
  t.ok(keys.length > 20)
  for (const key of keys) {
    const why = { option: key, message: new RegExp(`^${key}: .* is not `) }
    t.throws(() => checkMountOptions({ lower: '/', mountpoint: '/', [key]: Symbol(key) }), why, key)
  }
})

t.test('what the types refuse', async t => {
  const base = { lower: '/', mountpoint: '/' }
  const other = { ...base, uperdir: '/u' }
  // Only compiled: each of these lines is a type error.
  const compiled = [
    // @ts-expect-error a key that is not known
    () => mount({ ...base, uperdir: '/u' }),
    // @ts-expect-error the same in a variable
    () => mount(other),
    // @ts-expect-error a wrong type
    () => mount({ ...base, readOnly: 'yes' }),
    // @ts-expect-error a word that is not one of the values
    () => mount({ ...base, io: 'fast' }),
    // @ts-expect-error a mount flag that there is not
    () => mount({ ...base, flags: ['loud'] }),
    // @ts-expect-error the mountpoint is missing
    () => mount({ lower: '/' }),
    // @ts-expect-error a key that is not known
    (handle: Mount) => handle.unmount({ force: true }),
    () => mount({ ...base, flags: ['ro', 'nodev'], io: 'cached', lower: ['/a', '/b'] as const }),
    (options: MountOptions) => mount(options),
    (options: Readonly<MountOptions>) => mount({ ...options, readOnly: true }),
  ]
  t.equal(compiled.length, 10)
  const handle = handleOf(new FakeServer())
  const unmountAs = (options: unknown) => handle.unmount(options as { lazy: boolean })
  await t.rejects(unmountAs({ lazy: 1 }), { name: 'MountError', option: 'lazy' })
  await t.rejects(unmountAs({ force: true }), { name: 'MountError', option: 'force' })
  await t.rejects(unmountAs(null), { name: 'MountError', option: 'options' })
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

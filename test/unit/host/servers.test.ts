import { existsSync } from 'node:fs'

import t from 'tap'

import { fuseConnectionsOf, fuseMountsOf, serversOf, titleOf } from '../../../src/host/servers.js'
import * as sys from '../../helpers/syscalls.js'

const GONE = 2 ** 30
const mount = {
  id: 1,
  device: '0:1048575',
  root: '/',
  mountpoint: '/nowhere at all',
  options: 'rw',
  type: 'fuse.tsoverlay',
  source: 'x',
  superOptions: 'rw',
}

t.test('an ended process serves nothing', async t => {
  t.equal(titleOf(GONE), '')
  t.same(fuseConnectionsOf(GONE), new Set())
  t.strictSame(fuseMountsOf(GONE), [])
})

t.test('a process without a connection serves nothing', async t => {
  t.same(fuseConnectionsOf(process.pid), new Set())
  t.strictSame(fuseMountsOf(process.pid), [])
  t.notOk(serversOf(mount).includes(process.pid))
  t.match(titleOf(process.pid), /\S/)
  t.notMatch(titleOf(process.pid), '\0')
})

t.test('an unreported connection may be any', async t => {
  const fd = existsSync('/dev/fuse') ? sys.open('/dev/fuse', sys.O.RDWR) : -1
  if (fd < 0) return t.comment('needs /dev/fuse')
  const { title } = process
  t.teardown(() => {
    process.title = title
    sys.close(fd)
  })
  t.equal(fuseConnectionsOf(process.pid), undefined)
  t.notOk(serversOf(mount).includes(process.pid))
  // Then only the title identifies it, and it may be truncated.
  process.title = 'tsoverlay mount /n -o x'
  t.ok(serversOf({ ...mount, mountpoint: '/n' }).includes(process.pid))
  t.notOk(serversOf({ ...mount, mountpoint: '/' }).includes(process.pid))
})

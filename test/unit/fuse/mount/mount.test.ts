import t from 'tap'

import { detach, mountDevice, mountedDevice } from '../../../../src/fuse/mount/mount.js'
import { statSync } from 'node:fs'

t.test('what is mounted on a directory', async t => {
  const { dev } = statSync('/proc')
  t.equal(mountedDevice('/proc'), `${dev >> 8}:${dev & 0xff}`)
  t.equal(mountedDevice(t.testdir()), undefined)
  t.equal(mountedDevice('/no/such/directory'), undefined)
})

t.test('only an existing mount is detached', async t => {
  detach('/proc', undefined)
  detach('/proc', '0:1048575')
  t.ok(mountedDevice('/proc'), 'another mount stays')
})

t.test('the error of a refused mount names the path', async t => {
  const request = {
    mountpoint: `${t.testdir()}/none`,
    fsname: 'x',
    subtype: 'tsoverlay',
    allowOther: false,
    flags: 0,
  }
  t.throws(() => mountDevice(-1, request), {
    name: 'MountError',
    option: 'mountpoint',
    path: request.mountpoint,
    code: /ENOENT|EPERM/,
  })
})

/** src/sys/xattr.ts on the real filesystem. Needs root (trusted.*). */

import * as fs from 'node:fs'
import { release } from 'node:os'
import t from 'tap'
import { openat } from '../../../src/sys/at.js'
import * as k from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import { features } from '../../../src/sys/features.js'
import { close } from '../../../src/sys/io.js'
import {
  getxattrat,
  getxattrValue,
  listxattrat,
  listxattrNames,
  removexattrat,
  setxattrat,
} from '../../../src/sys/xattr.js'
import { directory } from './support.js'

const bytes = (s: string): Buffer => Buffer.from(s, 'latin1')

t.test('the probe agrees with the kernel version', async t => {
  const d = directory(t)
  listxattrNames(d.fd, '')
  const [major = 0, minor = 0] = release().split('.').map(Number)
  if (major < 6 || (major === 6 && minor < 13)) t.notOk(features.xattrat)
  else t.ok(features.xattrat)
})

// First with getxattrat, if the kernel has it, then as on a kernel without it.
for (const kernel of ['this', 'older']) {
  t.test(`${kernel} kernel`, async t => {
    const before = features.xattrat
    t.teardown(() => (features.xattrat = before))
    if (kernel === 'older') features.xattrat = false

    t.test('by name; of a symlink, not its target', async t => {
      const d = directory(t)
      const buf = Buffer.alloc(20)
      for (const name of ['file', 'dir', 'link', 'fifo', '\xff\xfe']) {
        if (name === 'dir') fs.mkdirSync(d.at(name))
        else if (name === 'link') fs.symlinkSync('file', d.at(name))
        else close(openat(d.fd, name, k.O_CREAT | k.O_RDWR | k.O_NONBLOCK, 0o600))

        buf.fill('!')
        t.strictSame(listxattrNames(d.fd, name), [])
        t.equal(getxattrat(d.fd, name, 'trusted.a', buf), -E.ENODATA)
        t.equal(setxattrat(d.fd, name, 'trusted.a', bytes(`\0value\xff`), 0), 0)
        t.equal(setxattrat(d.fd, name, 'trusted.\xe9', bytes(''), k.XATTR_CREATE), 0)
        t.equal(setxattrat(d.fd, name, 'trusted.a', bytes('x'), k.XATTR_CREATE), -E.EEXIST)
        t.equal(setxattrat(d.fd, name, 'trusted.b', bytes('x'), k.XATTR_REPLACE), -E.ENODATA)
        t.equal(getxattrat(d.fd, name, 'trusted.a', buf.subarray(5, 12)), 7)
        t.equal(buf.latin1Slice(4, 13), `!\0value\xff!`)
        t.equal(getxattrat(d.fd, name, 'trusted.a', buf.subarray(0, 0)), 7, 'the length only')
        t.equal(getxattrat(d.fd, name, 'trusted.a', buf.subarray(0, 6)), -E.ERANGE)
        t.same(getxattrValue(d.fd, name, 'trusted.a'), bytes(`\0value\xff`))
        t.same(getxattrValue(d.fd, name, 'trusted.\xe9'), bytes(''))
        t.strictSame(
          new Set(listxattrNames(d.fd, name) as string[]),
          new Set(['trusted.a', 'trusted.\xe9']),
        )
        t.equal(listxattrat(d.fd, name, buf.subarray(0, 0)), 20)
        t.equal(listxattrat(d.fd, name, buf.subarray(0, 19)), -E.ERANGE)
        t.equal(listxattrat(d.fd, name, buf), 20)
        t.equal(removexattrat(d.fd, name, 'trusted.\xe9'), 0)
        t.equal(removexattrat(d.fd, name, 'trusted.\xe9'), -E.ENODATA)
        t.strictSame(listxattrNames(d.fd, name), ['trusted.a'])
        if (name === 'link') t.equal(setxattrat(d.fd, name, 'user.a', bytes('x'), 0), -E.EPERM)
      }
    })

    t.test("'' is what the descriptor refers to", async t => {
      const d = directory(t)
      fs.writeFileSync(d.at('file'), '')
      fs.mkdirSync(d.at('dir'))
      fs.symlinkSync('file', d.at('link'))
      for (const name of ['file', 'dir', 'link']) {
        for (const flags of name === 'link' ? [k.O_PATH] : [k.O_RDONLY, k.O_PATH]) {
          const fd = d.keep(openat(d.fd, name, flags))
          const attr = `trusted.${flags}`
          t.equal(getxattrValue(fd, '', attr), -E.ENODATA)
          t.equal(setxattrat(fd, '', attr, bytes(name), 0), 0)
          t.same(getxattrValue(fd, '', attr), bytes(name))
          t.same(getxattrValue(d.fd, name, attr), bytes(name), 'of that very object')
          t.strictSame(listxattrNames(fd, ''), [attr])
          t.equal(removexattrat(fd, '', attr), 0)
          t.equal(removexattrat(fd, '', attr), -E.ENODATA)
        }
      }
    })

    t.test('errors', async t => {
      const d = directory(t)
      fs.writeFileSync(d.at('file'), '')
      const buf = Buffer.alloc(20)
      const long = 'n'.repeat(5000)
      t.equal(getxattrat(d.fd, 'none', 'user.a', buf), -E.ENOENT)
      t.equal(listxattrNames(d.fd, 'none'), -E.ENOENT)
      t.equal(getxattrat(d.fd, long, 'user.a', buf), -E.ENAMETOOLONG)
      t.equal(listxattrat(d.fd, long, buf), -E.ENAMETOOLONG)
      t.equal(getxattrat(d.fd, 'file', `user.${long}`, buf), -E.ERANGE)
      t.equal(setxattrat(d.fd, 'file', `user.${long}`, buf, 0), -E.ERANGE)
      t.equal(removexattrat(d.fd, 'file', `user.${long}`), -E.ERANGE)
      t.equal(setxattrat(d.fd, 'file', `user.${'n'.repeat(251)}`, bytes('x'), 0), -E.ERANGE)
      t.equal(setxattrat(d.fd, 'file', `user.${'n'.repeat(250)}`, bytes('x'), 0), 0)
      t.strictSame(listxattrNames(d.fd, 'file'), [`user.${'n'.repeat(250)}`])
      t.equal(setxattrat(d.fd, 'file', 'nonsense', bytes('x'), 0), -E.EOPNOTSUPP)
      t.equal(setxattrat(d.fd, 'file', 'user.a', Buffer.alloc(k.XATTR_SIZE_MAX + 1), 0), -E.E2BIG)
      t.equal(getxattrat(-1, '', 'user.a', buf), -E.EBADF)
      t.equal(listxattrat(999_999, '', buf), -E.EBADF)
      t.equal(getxattrat(k.AT_FDCWD, d.at('file'), 'user.a', buf), -E.ENODATA)
      t.equal(getxattrat(k.AT_FDCWD, '', 'user.nonsense', buf), -E.ENODATA)
      t.equal(getxattrat(k.AT_FDCWD, long, 'user.a', buf), -E.ENAMETOOLONG)
    })
  })
}

t.test('values and lists beyond the first buffer', async t => {
  const d = directory(t)
  // A filesystem that accepts values of 64 KiB.
  const shm = '/dev/shm'
  fs.writeFileSync(d.at('file'), '')
  for (const size of [511, 512, 513, 2000]) {
    const value = Buffer.alloc(size, size)
    t.equal(setxattrat(d.fd, 'file', 'user.big', value, 0), 0)
    t.same(getxattrValue(d.fd, 'file', 'user.big'), value)
  }
  t.equal(removexattrat(d.fd, 'file', 'user.big'), 0)
  const names = Array.from({ length: 12 }, (_, i) => `user.${String(i).padStart(200, 'n')}`)
  for (const name of names) t.equal(setxattrat(d.fd, 'file', name, bytes(''), 0), 0)
  t.strictSame((listxattrNames(d.fd, 'file') as string[]).toSorted(), names.toSorted())
  t.equal(getxattrValue(d.fd, 'file', `user.${'n'.repeat(5000)}`), -E.ERANGE)

  if (!fs.existsSync(shm)) return
  const path = `${shm}/tsoverlay-xattr-${process.pid}`
  fs.writeFileSync(path, '')
  t.teardown(() => fs.unlinkSync(path))
  const value = Buffer.alloc(k.XATTR_SIZE_MAX, 7)
  if (setxattrat(k.AT_FDCWD, path, 'trusted.big', value, 0) === 0) {
    t.same(getxattrValue(k.AT_FDCWD, path, 'trusted.big'), value)
  }
})

/**
 * The transport fuse-native: the tests of the kernel transport, which do not depend on the
 * transport, and tests of the package itself. docs/FUSE-NATIVE.md lists its limits.
 */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import t from 'tap'
import { install } from '../helpers/installed.js'
import {
  directories,
  outcomeOf,
  serve,
  skipMounts,
  spawnNode,
  test,
  waitUntil,
} from '../helpers/mount.js'
import * as sys from '../helpers/syscalls.js'
import { useNative, skipNative } from '../helpers/transport.js'

const { O } = sys
const EINVAL = -22
const ERANGE = -34
const EILSEQ = -84
const EOPNOTSUPP = -95
const ACL_ACCESS = 'system.posix_acl_access'

const ownTests = (): void => {
  test(t, 'the package serves the mount', async t => {
    const f = directories(t)
    const server = await serve(t, f)
    fs.writeFileSync(`${f.merged}/x`, 'x')
    server.process.kill('SIGUSR1')
    await waitUntil('counters', () => server.log().includes('"counters"'))
    t.match(server.log(), /"native\.create":1[,}]/)
    const limits = server
      .log()
      .split('\n')
      .filter(line => line.includes('with its limits'))
    t.equal(limits.length, 1, 'and says so, and what it cannot do, in one line')
  })

  test(t, 'errors of the package are corrected', async t => {
    const f = directories(t)
    await serve(t, f)
    const path = `${f.merged}/f`
    fs.writeFileSync(path, 'text')
    for (const sec of [1_000_000_000, -300_000_000]) {
      const [atime, mtime] = [
        { sec, nsec: 123_456_789 },
        { sec: sec + 5, nsec: 987_654_321 },
      ]
      t.equal(sys.utimensat(sys.AT_FDCWD, path, atime, mtime, 0), 0)
      const stat = sys.lstat(sys.AT_FDCWD, `${f.upper}/f`)
      t.match(stat, {
        atime: BigInt(sec) * 1_000_000_000n + 123_000_000n,
        mtime: BigInt(sec + 5) * 1_000_000_000n + 987_000_000n,
      })
    }
    const target = { path, follow: true }
    const value = Buffer.alloc(3000, 'v')
    t.equal(sys.setxattr(target, 'user.long', value, 0), 0)
    t.equal(sys.setxattr(target, 'user.empty', Buffer.alloc(0), 0), 0)
    t.same(sys.getxattr(target, 'user.long'), value)
    t.same(sys.getxattr(target, 'user.empty'), Buffer.alloc(0))
    t.equal(sys.getxattr(target, 'user.long', 100), ERANGE)
    t.same(sys.listxattr(target), ['user.empty', 'user.long'])
    t.equal(sys.listxattr(target, 5), ERANGE)
    const fd = sys.open(path, O.RDWR)
    fs.unlinkSync(path)
    t.match(sys.fstat(fd), { nlink: 0 }, 'no link is no link')
    t.same(fs.readdirSync(f.merged), [], 'and no other name')
    t.same(fs.readdirSync(f.upper), [])
    sys.close(fd)
  })

  test(t, 'unsupported options are refused', async t => {
    const f = directories(t)
    const server = await serve(t, f)
    fs.writeFileSync(Buffer.from(`${f.lower}/\xff`, 'latin1'), '')
    fs.writeFileSync(`${f.merged}/a`, 'a')
    const at = (name: string): string => Buffer.from(`${f.merged}/${name}`).toString('latin1')
    t.equal(sys.open(at('a').replace(/a$/, '\xfe'), O.CREAT | O.RDWR), EILSEQ)
    t.equal(sys.open(at('\ufffd'), O.CREAT | O.RDWR), EILSEQ)
    t.equal(sys.close(sys.open(at('\u65e5'), O.CREAT | O.RDWR)), 0)
    t.same(fs.readdirSync(f.merged).toSorted(), ['a', '\u65e5'])
    await waitUntil('a warning', () => server.log().includes('is left out of listings'))
    t.equal(sys.renameat2(sys.AT_FDCWD, at('a'), sys.AT_FDCWD, at('b'), 1), EINVAL)
    const target = { path: `${f.merged}/a`, follow: true }
    const acl = Buffer.from('0200000001000600ffffffff04000400ffffffff20000400ffffffff', 'hex')
    t.equal(sys.setxattr(target, ACL_ACCESS, acl, 0), EOPNOTSUPP)
    t.equal(sys.getxattr(target, ACL_ACCESS), EOPNOTSUPP)
  })

  test(t, 'without the package', async t => {
    const f = directories(t)
    const copy = install(f.top, 'fuse-native')
    const mount = [`${copy}/dist/cli/main.cjs`, 'mount', '-o', f.options]
    const missing = await outcomeOf(spawnNode([...mount, '--transport', 'fuse-native', f.merged]))
    t.match(missing, {
      status: 32,
      stderr:
        /^tsoverlay: transport=fuse-native: the package is not installed; install it with: npm install [^\n]*fuse-native@2\.2\.6[^\n]*\n$/,
    })
    t.same(fs.readdirSync(f.work), [], 'nothing was created')
    t.match(await outcomeOf(spawnNode([...mount, f.merged])), { status: 0, stderr: '' })
    t.equal(spawnSync('umount', [f.merged]).status, 0)
  })
}

const skip = skipMounts === false ? skipNative(t) : skipMounts
if (skip !== false) t.test('the package fuse-native', { skip }, async () => {})
else {
  useNative()
  ownTests()
  await import('./lifecycle.test.js')
  await import('./regressions.test.js')
}

/**
 * Lower layers on file systems with fewer features than the upper one. All cases run on kernel
 * overlayfs first.
 */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { inflateRawSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { Bench, KINDS, skipKind } from '../helpers/kinds.js'
import * as sys from '../helpers/syscalls.js'
import { isNative } from '../helpers/transport.js'

const ENODATA = -61
const OTHER = 1234

const as = (uid: number, ...command: string[]): string => {
  const args = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', ...command]
  const done = spawnSync('setpriv', args, { encoding: 'utf8' })
  return done.stdout + done.stderr
}

/** A file system without ACLs and xattrs. */
const noAcls = (t: Test, b: Bench): void => {
  fs.chmodSync(b.lower, 0o755)
  fs.writeFileSync(`${b.lower}/f`, 'lower')
  fs.writeFileSync(`${b.lower}/theirs`, 'lower')
  fs.chownSync(`${b.lower}/theirs`, OTHER, OTHER)
  fs.mkdirSync(`${b.lower}/d`)
  fs.writeFileSync(`${b.lower}/d/g`, 'deep')
  b.mount()
  t.equal(as(OTHER, 'cat', `${b.m}/f`), 'lower')
  t.equal(as(OTHER, 'cat', `${b.m}/d/g`), 'deep')
  t.equal(as(OTHER, 'ls', `${b.m}/d`), 'g\n')
  t.equal(fs.readFileSync(`${b.m}/theirs`, 'latin1'), 'lower', 'of another owner')
  t.match(as(OTHER, 'sh', '-c', `echo >${b.m}/f`), 'Permission denied')
  if (!isNative())
    for (const name of ['system.posix_acl_access', 'system.posix_acl_default'])
      t.equal(sys.getxattr({ path: `${b.m}/d`, follow: false }, name), ENODATA, name)
  fs.chmodSync(`${b.m}/f`, 0o640)
  fs.appendFileSync(`${b.m}/theirs`, ' and more')
  t.match(as(OTHER, 'cat', `${b.m}/f`), 'Permission denied')
  t.equal(as(OTHER, 'cat', `${b.m}/theirs`), 'lower and more')
  b.umount()
}

/** An erofs with a file `f` that contains `hi`, and an empty directory `d`. */
const EROFS =
  'Y2AYBaNgFIxU8Ojh1wdsBytmMzMwMPAwqDAwY1HDiFs7I6X2szAwMLx1ZGYwhfL/////H1leBUobMDDB2YYMTAzqULYxAxODJpRtwsDIoKenl5KGZv5/' +
  'RyYGaSTzkR0NM0cCyXxJBiaQOXD92xoZGZiQ9DMh6c/IHE1Do2AUjIJRMApGwSgYBaNg6AAA'

/** A file system that reports all objects as immutable in statx(2), and none in its inode flags. */
const saysImmutable = (t: Test, b: Bench): void => {
  b.mount()
  fs.appendFileSync(`${b.m}/f`, ' there')
  t.equal(fs.readFileSync(`${b.m}/f`, 'latin1'), 'hi there')
  fs.writeFileSync(`${b.m}/d/new`, '')
  fs.renameSync(`${b.m}/f`, `${b.m}/d/moved`)
  t.same(fs.readdirSync(`${b.m}/d`).toSorted(), ['moved', 'new'])
  fs.rmSync(`${b.m}/d`, { recursive: true })
  t.same(fs.readdirSync(b.m), [])
  b.umount()
}

const mount = (...args: string[]): string => spawnSync('mount', args, { encoding: 'utf8' }).stderr

const onErofs = (t: Test, b: Bench): void => {
  fs.writeFileSync(`${b.top}/image`, inflateRawSync(Buffer.from(EROFS, 'base64')))
  t.equal(mount('-t', 'erofs', '-o', 'loop,ro', `${b.top}/image`, b.lower), '')
  saysImmutable(t, b)
}

const onRamfs = (t: Test, b: Bench): void => {
  t.equal(mount('-t', 'ramfs', 'ramfs', b.lower), '')
  noAcls(t, b)
}

const hasErofs =
  fs.existsSync('/dev/loop-control') &&
  /\terofs$/m.test(fs.readFileSync('/proc/filesystems', 'utf8'))

const CASES = [
  { name: 'a lower layer without ACLs', skip: false, run: onRamfs },
  {
    name: 'a lower layer that reports everything as immutable',
    skip: !hasErofs && 'needs erofs and loop devices',
    run: onErofs,
  },
]

for (const kind of KINDS)
  t.test(kind.name, { skip: skipKind(kind) }, async t => {
    for (const { name, skip, run } of CASES)
      await t.test(name, { skip }, async t => {
        const b = new Bench(kind)
        try {
          run(t, b)
        } finally {
          sys.umount(b.m, sys.MNT.DETACH)
          sys.umount(b.lower, sys.MNT.DETACH)
          b.end()
        }
      })
  })

/**
 * Files that are opened and closed without requests (`noopen`). The regressions, full-disk and
 * differential tests also run in this mode and cover the common behaviour.
 */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import t, { type Test } from 'tap'
import {
  counters,
  directories,
  openIn,
  serve,
  skipMounts,
  test,
  tsoverlay,
  waitUntil,
  type Directories,
  type Served,
} from '../helpers/mount.js'
import * as sys from '../helpers/syscalls.js'

const { O } = sys
const EPERM = -1
const ENOSPC = -28
const FS_IMMUTABLE_FL = 0x10
const FS_APPEND_FL = 0x20

/** The message of a thread that could not get descriptors. */
const NO_THREAD = /has not started (?:within|in time)/

const text = (path: string): string => fs.readFileSync(path, 'latin1')
const read = (fd: number): string => {
  const buf = Buffer.alloc(100)
  const got = sys.pread(fd, buf, 0)
  return got < 0 ? `errno ${-got}` : buf.latin1Slice(0, got)
}
const write = (fd: number, content: string, at = 0): number =>
  sys.pwrite(fd, Buffer.from(content), at)

/** The kernel drops written pages and inodes without references. */
const dropCaches = (): void => {
  spawnSync('sync')
  fs.writeFileSync('/proc/sys/vm/drop_caches', '3')
}

const mounted = async (t: Test, options = 'noopen'): Promise<[Directories, Served]> => {
  const f = directories(t)
  for (const name of ['a', 'b', 'c', 'd']) fs.writeFileSync(`${f.lower}/${name}`, `lower ${name}`)
  return [f, await serve(t, f, '-o', options)]
}

const cases = async (t: Test): Promise<void> => {
  await test(t, 'no request opens or closes a file', async t => {
    const [f, server] = await mounted(t)
    t.equal(text(`${f.merged}/a`), 'lower a')
    const before = await counters(server)
    for (let i = 0; i < 50; i++) t.equal(text(`${f.merged}/a`), 'lower a')
    for (let i = 0; i < 50; i++) sys.close(sys.open(`${f.merged}/b`, O.RDWR))
    fs.writeFileSync(`${f.merged}/new`, 'new')
    const after = await counters(server)
    t.equal(after['op.OPEN'], 1, 'the first request was answered, so no further ones are')
    t.equal(after['op.RELEASE'] ?? 0, 0)
    t.equal(after['op.READ'], before['op.READ'])
    t.same(fs.readdirSync(f.upper), ['new'], 'an open alone copies nothing up')
  })

  await test(t, 'a read-only union uses it by default', async t => {
    const f = directories(t)
    fs.writeFileSync(`${f.lower}/a`, 'a')
    const server = await serve(t, { ...f, options: `lowerdir=${f.lower},io=cached` })
    for (let i = 0; i < 5; i++) t.equal(text(`${f.merged}/a`), 'a')
    t.equal((await counters(server))['op.OPEN'], 1)
  })

  await test(t, 'incompatible options', async t => {
    const f = directories(t)
    for (const [also, why] of [
      ['io=passthrough', /^tsoverlay: noopen: with io=passthrough every open is a message/],
      ['noxattrs=1', /^tsoverlay: noopen: it needs attributes/],
    ] as const)
      t.match(await tsoverlay('mount', '-o', `${f.options},noopen,${also}`, f.merged), {
        status: 1,
        stderr: why,
      })
  })

  await test(t, 'a removed or replaced file stays usable while it is open', async t => {
    const [f] = await mounted(t)
    fs.writeFileSync(`${f.merged}/up`, 'upper')
    const tmp = sys.open(f.merged, O.TMPFILE | O.RDWR, 0o600)
    t.equal(write(tmp, 'tmp'), 3)
    const fds = ['a', 'b', 'up'].map(name => sys.open(`${f.merged}/${name}`, O.RDWR))
    const [a = -1, b = -1, up = -1] = fds
    fs.unlinkSync(`${f.merged}/a`)
    fs.unlinkSync(`${f.merged}/up`)
    fs.writeFileSync(`${f.merged}/other`, 'other')
    fs.renameSync(`${f.merged}/other`, `${f.merged}/b`)
    dropCaches()
    t.same([a, b, up, tmp].map(read), ['lower a', 'lower b', 'upper', 'tmp'])
    for (const fd of [a, b, up, tmp]) {
      t.equal(write(fd, 'XY', 1), 2)
      t.equal(sys.fsync(fd), 0)
      t.equal(sys.ftruncate(fd, 3), 0)
    }
    dropCaches()
    t.same([a, b, up, tmp].map(read), ['lXY', 'lXY', 'uXY', 'tXY'])
    t.equal(text(`${f.merged}/b`), 'other')
    t.same(
      ['a', 'b'].map(name => text(`${f.lower}/${name}`)),
      ['lower a', 'lower b'],
    )
    for (const fd of [a, b, up, tmp]) t.equal(sys.close(fd), 0)
  })

  await test(t, 'more open files than descriptors, and no file is left open', async t => {
    const f = directories(t)
    const many = Array.from({ length: 300 }, (_, i) => `f${i}`)
    for (const name of many) fs.writeFileSync(`${f.lower}/${name}`, name)
    const server = await serve(t, f, '-o', 'noopen')
    // This is less than the server expects, and maybe too few for a thread.
    server.expect(NO_THREAD)
    spawnSync('prlimit', ['--pid', String(server.pid), '--nofile=80:80'])
    const fds = many.map(name => sys.open(`${f.merged}/${name}`, O.RDWR))
    t.ok(fds.every(fd => fd >= 0))
    t.same(fds.map(read), many)
    t.ok(fds.every(fd => write(fd, 'W') === 1 && sys.fsync(fd) === 0))
    dropCaches()
    t.same(
      fds.map(read),
      many.map(name => `W${name.slice(1)}`),
    )
    t.same(
      many.map(name => text(`${f.lower}/${name}`)),
      many,
    )
    // Each of these uses a descriptor until the file is closed.
    const removed = many.splice(0, 10)
    for (const name of removed) fs.unlinkSync(`${f.merged}/${name}`)
    dropCaches()
    t.same(
      fds.slice(0, 10).map(read),
      removed.map(name => `W${name.slice(1)}`),
    )
    for (const fd of fds) sys.close(fd)
    for (const name of many) fs.unlinkSync(`${f.merged}/${name}`)
    await waitUntil('nothing is open', () => openIn(server.pid, f.upper) === 0)
    await server.unmount()
  })

  await test(t, 'late errors: an immutable or append-only file', async t => {
    for (const options of ['noopen', 'noopen,writeback=0']) {
      const [f] = await mounted(t, options)
      const before = sys.open(`${f.merged}/a`, O.RDWR)
      t.equal(write(before, 'L'), 1)
      for (const flag of [FS_IMMUTABLE_FL, FS_APPEND_FL]) {
        const reader = sys.open(`${f.merged}/a`, O.RDONLY)
        t.equal(sys.setFlags(reader, flag), 0)
        const fd = sys.open(`${f.merged}/a`, O.WRONLY | O.APPEND)
        t.ok(fd >= 0, 'it is opened')
        t.equal(write(fd, 'x'), EPERM, 'writing fails, also with O_APPEND')
        t.equal(write(before, 'x'), EPERM, 'also through a descriptor opened before')
        t.equal(sys.fallocate(fd, 0, 0, 100), EPERM)
        t.equal(sys.ftruncate(fd, 0), EPERM)
        t.equal(sys.open(`${f.merged}/a`, O.WRONLY | O.TRUNC), EPERM)
        t.equal(sys.close(fd), 0)
        t.equal(sys.setFlags(reader, 0), 0)
        sys.close(reader)
      }
      t.equal(write(before, 'ok'), 2)
      t.equal(sys.close(before), 0)
      t.equal(text(`${f.upper}/a`), 'okwer a')
    }
  })

  await test(t, 'late errors: no space for a copy-up', async t => {
    for (const options of ['noopen', 'noopen,writeback=0']) {
      const f = directories(t)
      fs.writeFileSync(`${f.lower}/big`, 'x'.repeat(3 << 20))
      t.equal(sys.mount('none', f.upper, 'tmpfs', 0, 'size=1m'), 0)
      f.before(() => void sys.umount(f.upper, sys.MNT.DETACH))
      for (const part of ['u', 'w']) fs.mkdirSync(`${f.upper}/${part}`)
      const union = `lowerdir=${f.lower},upperdir=${f.upper}/u,workdir=${f.upper}/w`
      const server = await serve(t, { ...f, options: union }, '-o', options)
      const fd = sys.open(`${f.merged}/big`, O.RDWR)
      t.ok(fd >= 0, 'it is opened')
      if (options === 'noopen') {
        t.equal(write(fd, 'Y'), 1, 'with write-back the write waits')
        t.equal(sys.fsync(fd), ENOSPC, 'fsync(2) gets the error, too')
        t.equal(write(fd, 'Y'), 1)
        t.equal(sys.close(fd), ENOSPC, 'or close(2)')
      } else {
        t.equal(write(fd, 'Y'), ENOSPC)
        t.equal(sys.close(fd), 0)
      }
      t.same(fs.readdirSync(`${f.upper}/u`), [], 'no half file')
      await server.unmount()
      sys.umount(f.upper, sys.MNT.DETACH)
    }
  })

  await test(t, 'the first write copies the data of a metacopy file up', async t => {
    const f = directories(t)
    fs.writeFileSync(`${f.lower}/f`, 'lower data')
    fs.writeFileSync(`${f.upper}/f`, '')
    fs.truncateSync(`${f.upper}/f`, 10)
    const upper = { path: `${f.upper}/f`, follow: false }
    sys.setxattr(upper, 'trusted.overlay.metacopy', Buffer.alloc(0), 0)
    await serve(t, f, '-o', 'noopen')
    const reader = sys.open(`${f.merged}/f`, O.RDONLY)
    t.equal(read(reader), 'lower data')
    const fd = sys.open(`${f.merged}/f`, O.WRONLY)
    t.equal(write(fd, 'upper'), 5)
    t.equal(sys.fsync(fd), 0)
    dropCaches()
    t.equal(read(reader), 'upper data')
    t.equal(text(`${f.upper}/f`), 'upper data')
    t.equal(text(`${f.lower}/f`), 'lower data')
    for (const open of [fd, reader]) sys.close(open)
  })

  await test(t, 'pages of large lower files are written back while other calls wait', async t => {
    // Each process waits for its pages, and the pages wait for a copy-up.
    const f = directories(t)
    const names = ['one', 'two', 'three', 'four']
    for (const name of names) fs.writeFileSync(`${f.lower}/${name}`, 'x'.repeat(3 << 20))
    await serve(t, f, '-o', 'noopen')
    const script = `
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.pwrite(fd, b'Y', 100)
print(os.lseek(fd, 100, os.SEEK_DATA))
os.close(fd)`
    const all = names.map(name => `python3 -c "$S" ${f.merged}/${name} &`).join(' ')
    const result = spawnSync('sh', ['-c', `${all} wait`], {
      encoding: 'utf8',
      timeout: 60_000,
      env: { ...process.env, S: script },
    })
    t.match(result, { status: 0, signal: null, stdout: '100\n'.repeat(4) })
    for (const name of names) t.equal(text(`${f.upper}/${name}`)[100], 'Y')
  })
}

t.test('noopen', { skip: skipMounts }, cases)

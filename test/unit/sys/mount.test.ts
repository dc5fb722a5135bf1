import fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { openat, readlinkat, statxat, unlinkat } from '../../../src/sys/at.js'
import { O_CREAT, O_DIRECTORY, O_RDONLY, O_WRONLY } from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import { close, write } from '../../../src/sys/io.js'
import { clonePrivate, openTmpfs, umount } from '../../../src/sys/mount.js'
import { Stat } from '../../../src/sys/stat.js'

t.test('a private mount is read-only and updates no access time', async t => {
  const dir = fs.mkdtempSync(`${process.env['TSOVERLAY_TEST_DIR'] ?? '/var/tmp'}/tsoverlay-mount-`)
  t.teardown(() => fs.rmSync(dir, { recursive: true }))
  fs.writeFileSync(path.join(dir, 'file'), 'text')
  fs.symlinkSync('file', path.join(dir, 'link'))
  const old = new Date('2001-01-01')
  fs.lutimesSync(path.join(dir, 'link'), old, old)
  const tree = clonePrivate(dir)
  t.ok(tree >= 0, 'cloned')
  const fd = openat(tree, '.', O_RDONLY | O_DIRECTORY)
  t.equal(close(tree), 0)
  t.ok(fd >= 0, 'it lives on in what was opened through it')
  t.equal(openat(fd, 'new', O_CREAT | O_WRONLY, 0o644), -E.EROFS)
  t.equal(openat(fd, 'file', O_WRONLY), -E.EROFS)
  t.equal(unlinkat(fd, 'file'), -E.EROFS)
  t.equal(readlinkat(fd, 'link', Buffer.alloc(64)), 4)
  const st = new Stat()
  t.equal(statxat(fd, 'link', st), 0)
  t.equal(st.atimeSec, old.getTime() / 1000)
  t.equal(close(fd), 0)
})

t.test(
  'a tmpfs that is mounted nowhere',
  { skip: process.getuid?.() !== 0 && 'needs root' },
  async t => {
    const mounts = fs.readFileSync('/proc/self/mountinfo', 'latin1')
    const root = openTmpfs('1m')
    t.ok(root >= 0, `${root}`)
    const file = openat(root, 'file', O_CREAT | O_WRONLY, 0o644)
    t.ok(file >= 0)
    t.equal(write(file, Buffer.alloc(1 << 20), 0, 1 << 20), 1 << 20)
    t.equal(write(file, Buffer.alloc(4096), 0, 4096), -E.ENOSPC)
    t.equal(fs.readFileSync('/proc/self/mountinfo', 'latin1'), mounts)
    t.equal(close(file), 0)
    t.equal(close(root), 0)
    t.equal(openTmpfs('much'), -E.EINVAL)
  },
)

t.test('errors', async t => {
  t.equal(clonePrivate('/nonexistent'), -E.ENOENT)
  t.equal(umount('/nonexistent'), -E.ENOENT)
})

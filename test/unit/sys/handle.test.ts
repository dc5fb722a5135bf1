import * as fs from 'node:fs'
import t from 'tap'
import * as at from '../../../src/sys/at.js'
import * as k from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import { close, fsync } from '../../../src/sys/io.js'
import { Stat } from '../../../src/sys/stat.js'
import { directory } from './support.js'

t.test('file handles', async t => {
  const d = directory(t)
  fs.writeFileSync(d.at('file'), 'hello')
  fs.symlinkSync('file', d.at('link'))
  const st = new Stat()
  const st2 = new Stat()
  const buf = Buffer.alloc(at.HANDLE_ROOM)
  const handleIn = (n: number): Buffer => buf.subarray(at.HANDLE_TYPE_SIZE, at.HANDLE_TYPE_SIZE + n)
  for (const name of ['file', 'link', '.']) {
    const n = at.nameToHandle(d.fd, name, buf)
    t.ok(n > 0)
    const type = buf.readInt32LE(0)
    const handle = Buffer.from(handleIn(n))
    const o = at.openat(d.fd, name, k.O_PATH)
    t.equal(at.nameToHandle(o, '', buf), n, 'the descriptor itself')
    t.same(handleIn(n), handle)
    const fd = at.openByHandle(d.fd, type, handle, k.O_PATH)
    at.statxat(d.fd, name, st)
    at.fstatx(fd, st2)
    t.equal(st2.ino, st.ino)
    t.equal(st2.mode, st.mode)
    t.equal(close(o), 0)
    t.equal(close(fd), 0)
  }
  const n = at.nameToHandle(d.fd, 'file', buf)
  const type = buf.readInt32LE(0)
  const handle = handleIn(n)
  const fd = at.openByHandle(d.fd, type, handle, k.O_RDONLY)
  t.match(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'), /flags:\t02/, 'O_CLOEXEC')
  t.equal(fs.readFileSync(fd, 'latin1'), 'hello')
  t.equal(at.nameToHandle(d.fd, 'file', Buffer.alloc(at.HANDLE_TYPE_SIZE + n - 1)), -E.EOVERFLOW)
  t.equal(at.nameToHandle(d.fd, 'none', buf), -E.ENOENT)
  const proc = d.keep(at.openPath('/proc', k.O_PATH))
  t.equal(at.nameToHandle(proc, 'stat', Buffer.alloc(at.HANDLE_ROOM)), -E.EOPNOTSUPP)
  t.equal(at.openByHandle(d.fd, type, Buffer.alloc(129), 0), -E.EINVAL)
  const path = d.keep(at.openat(d.fd, '.', k.O_PATH))
  t.equal(at.openByHandle(path, type, handle, 0), -E.EBADF)

  close(fd)
  at.unlinkat(d.fd, 'file')
  fsync(d.fd)
  t.equal(at.openByHandle(d.fd, type, handle, k.O_RDONLY), -E.ESTALE)
})

/** src/sys/truncate.ts compared with truncate(2). Needs root. */

import * as fs from 'node:fs'
import t from 'tap'
import { openat } from '../../../src/sys/at.js'
import { O_PATH, O_RDONLY, O_WRONLY } from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import { truncateat } from '../../../src/sys/truncate.js'
import * as sys from '../../helpers/syscalls.js'
import { directory } from './support.js'

t.test('by name and by descriptor, sizes, times and errors as truncate(2)', async t => {
  const d = directory(t)
  const long = Math.floor(Date.now() / 1000) - 10_000
  const cuts = [0, 1, 4, 5, 4097, -1, Number.MAX_SAFE_INTEGER]
  for (const size of cuts) {
    const outcome = (path: string, result: number): unknown => {
      const st = fs.statSync(path)
      return { result, size: st.size, modified: Math.floor(st.mtimeMs / 1000) !== long }
    }
    const make = (name: string): string => {
      fs.writeFileSync(d.at(name), 'text')
      fs.utimesSync(d.at(name), long, long)
      return d.at(name)
    }
    const expected = outcome(make('expected'), sys.truncate(d.at('expected'), size))
    t.same(outcome(make('name'), truncateat(d.fd, 'name', size)), expected, `name, ${size}`)
    make('path')
    const pinned = d.keep(openat(d.fd, 'path', O_PATH))
    fs.renameSync(d.at('path'), d.at('elsewhere'))
    t.same(outcome(d.at('elsewhere'), truncateat(pinned, '', size)), expected, `O_PATH, ${size}`)
  }
  fs.copyFileSync('/bin/true', d.at('busy'))
  fs.chmodSync(d.at('busy'), 0o755)
  t.equal(truncateat(d.fd, 'none', 0), -E.ENOENT)
  t.equal(truncateat(d.fd, 'n'.repeat(4096), 0), -E.ENAMETOOLONG)
  t.equal(truncateat(1_000_000, 'name', 0), -E.EBADF)
})

t.test('other objects are refused; symlinks are not followed, FIFOs do not block', async t => {
  const d = directory(t)
  fs.writeFileSync(d.at('victim'), 'victim')
  fs.symlinkSync('victim', d.at('link'))
  fs.mkdirSync(d.at('dir'))
  sys.mknodat(d.fd, 'fifo', sys.S.IFIFO | 0o600, 0, 0)
  sys.mknodat(d.fd, 'socket', sys.S.IFSOCK | 0o600, 0, 0)
  for (const name of ['link', 'dir', 'fifo', 'socket']) {
    t.equal(truncateat(d.fd, name, 0), -E.ESTALE, name)
    t.equal(truncateat(d.keep(openat(d.fd, name, O_PATH)), '', 0), -E.ESTALE, `${name}, pinned`)
  }
  // It has a reader, so an open for writing succeeds.
  d.keep(sys.open(d.at('fifo'), sys.O.RDONLY | sys.O.NONBLOCK))
  t.equal(truncateat(d.fd, 'fifo', 0), -E.ESTALE)
  t.equal(fs.readFileSync(d.at('victim'), 'latin1'), 'victim')
})

t.test('a file that is read-only by its mode, and one that is executed', async t => {
  if (process.geteuid?.() !== 0) return t.comment('needs root')
  const d = directory(t)
  fs.chmodSync(d.path, 0o755)
  fs.writeFileSync(d.at('f'), 'text', { mode: 0o444 })
  fs.chownSync(d.at('f'), 1000, 1000)
  sys.withCredentials({ uid: 1000, gid: 1000, groups: [] }, () => {
    t.equal(truncateat(d.fd, 'f', 0), -E.EACCES)
    t.equal(truncateat(d.keep(openat(d.fd, 'f', O_RDONLY)), '', 0), -E.EACCES)
  })
  const flagged = d.keep(openat(d.fd, 'f', O_WRONLY))
  sys.setFlags(flagged, 0x20)
  const expected = sys.truncate(d.at('f'), 0)
  t.equal(truncateat(d.fd, 'f', 0), expected, 'append-only')
  sys.setFlags(flagged, 0)
})

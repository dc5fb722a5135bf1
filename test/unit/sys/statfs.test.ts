import * as fs from 'node:fs'
import t from 'tap'
import * as at from '../../../src/sys/at.js'
import * as k from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import { directory } from './support.js'

t.test('statfs', async t => {
  const d = directory(t)
  const out = new at.StatFs()
  const real = fs.statfsSync(d.path)
  t.equal(at.statfs(d.fd, out), 0)
  t.strictSame(
    [out.type, out.bsize, out.blocks, out.files],
    [real.type, real.bsize, real.blocks, real.files],
  )
  t.ok(out.bavail <= out.bfree && out.bfree <= out.blocks && out.ffree <= out.files)
  t.equal(out.namelen, 255)
  t.equal(out.frsize, 4096)
  const proc = d.keep(at.openPath('/proc', k.O_PATH))
  t.equal(at.statfs(proc, out), 0, 'O_PATH')
  t.equal(out.type, k.PROC_SUPER_MAGIC)
  t.equal(at.statfs(-1, out), -E.EBADF)
})

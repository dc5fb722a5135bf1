import t from 'tap'

import { Pipe, PIPE_SLOTS } from '../../../../src/fuse/device/pipe.js'
import { MAX_IO, PAGE } from '../../../../src/config/tuning.js'
import { write } from '../../../../src/sys/io.js'
import { getrlimitNofile, setrlimitNofile } from '../../../../src/sys/proc.js'
import { openFds } from '../../../helpers/union.js'

t.test('opened when needed, emptied by closing, given up for good', async t => {
  const before = openFds()
  const pipe = new Pipe()
  t.strictSame(openFds(), before)
  t.ok(pipe.open())
  t.equal(MAX_IO, (PIPE_SLOTS - 1) * PAGE, 'the header takes one')
  const { readFd: from } = pipe
  t.ok(pipe.open())
  t.equal(pipe.readFd, from)
  t.equal(write(pipe.writeFd, Buffer.from('left'), 0, 4), 4)
  pipe.close()
  t.strictSame(openFds(), before)
  t.ok(pipe.open())
  pipe.giveUp()
  t.ok(pipe.off)
  t.notOk(pipe.open())
  t.equal(pipe.readFd, -1)
  t.strictSame(openFds(), before)
})

t.test('no descriptors are left: there may be some later', async t => {
  const limit = getrlimitNofile()
  t.teardown(() => setrlimitNofile(limit))
  t.equal(setrlimitNofile(0), 0)
  const pipe = new Pipe()
  t.notOk(pipe.open())
  setrlimitNofile(limit)
  t.equal(pipe.readFd, -1)
  t.ok(pipe.open())
  pipe.close()
})

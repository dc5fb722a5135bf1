import * as fs from 'node:fs'

import t from 'tap'

import { Bell } from '../../../src/fuse/bell.js'
import { join, s32, u32, u64 } from '../../helpers/frames.js'
import { scratch } from '../../helpers/layers.js'

const NODE = 0x11_2233_c455_66

/** struct fuse_out_header with FUSE_NOTIFY_RETRIEVE, struct fuse_notify_retrieve_out */
const message = join(
  u32(48), // len
  s32(5), // error: the code
  u64(0), // unique
  u64(0), // notify_unique
  u64(NODE), // nodeid
  u64(0), // offset
  u32(0), // size
  u32(0), // padding
)

t.test('a bell is rung while it hangs', async t => {
  const path = `${scratch(t)}/device`
  fs.writeFileSync(path, '')
  const fd = fs.openSync(path, 'a')
  t.teardown(() => fs.closeSync(fd))
  const rung = (): number => fs.statSync(path).size / message.length

  const own = new Bell()
  const others = new Bell(own.cells)
  others.ring(fd)
  t.equal(rung(), 0, 'not yet')
  t.equal(own.hang(-1, NODE), false, 'the kernel does not take it')
  others.ring(fd)
  t.equal(rung(), 0)
  t.equal(own.hang(fd, NODE), true)
  t.equal(rung(), 1, 'once by itself')
  others.ring(fd)
  t.same(fs.readFileSync(path), join(message, message))
  t.equal(own.takeDown(), true)
  others.ring(fd)
  t.equal(rung(), 2, 'no more')
  t.equal(own.takeDown(), true, 'twice does no harm')
  own.takeDownSoon()
})

t.test('who is ringing is waited for', async t => {
  const bell = new Bell()
  Atomics.store(bell.cells, 0, 2)
  t.equal(bell.takeDown(), false)
  bell.ring(-1)
  t.equal(Atomics.load(bell.cells, 0), 2, 'one at a time')
})

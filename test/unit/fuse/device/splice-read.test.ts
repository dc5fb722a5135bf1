/** Replies through a pipe; a file replaces /dev/fuse. */

import * as fs from 'node:fs'
import t, { type Test } from 'tap'
import { E } from '../../../../src/sys/errno.js'
import { MIN_SPLICED } from '../../../../src/fuse/device/pipe.js'
import { ReplyPipe } from '../../../../src/fuse/device/splice-read.js'
import { Reply } from '../../../../src/fuse/protocol/wire.js'

const MiB = 1024 * 1024
const HEADER = 16

const bytes = (length: number): Buffer => {
  const buf = Buffer.alloc(length)
  for (let i = 0; i < length; i++) buf[i] = i ^ (i >> 8) ^ (i >> 16)
  return buf
}

const rig = (t: Test, content: Buffer) => {
  const dir = t.testdir({ file: content, device: '' })
  const fd = fs.openSync(`${dir}/file`, 'r')
  const device = fs.openSync(`${dir}/device`, 'w')
  const pipe = new ReplyPipe()
  const rep = new Reply(8192)
  t.teardown(() => {
    pipe.close()
    fs.closeSync(fd)
    fs.closeSync(device)
  })
  let at = 0
  /**
   * Replies like the session and the connection. Returns the bytes that arrived, or undefined if
   * the pipe was not used.
   */
  const reply = (length: number, pos: number): Buffer | undefined => {
    rep.header(HEADER + length, 0, 7, 0)
    const n = pipe.load(rep, fd, length, pos)
    if (n < 0) return undefined
    rep.header(HEADER + n, 0, 7, 0)
    const sent = pipe.send(device, HEADER + n)
    if (sent !== HEADER + n) throw new Error(`sent ${sent}`)
    const got = fs.readFileSync(`${dir}/device`).subarray(at)
    at += got.length
    return got
  }
  return { dir, fd, device, pipe, rep, reply }
}

t.test('data and a header with its length', async t => {
  const content = bytes(3 * MiB + 17)
  const r = rig(t, content)
  const cases: [length: number, pos: number][] = [
    [MIN_SPLICED, 0],
    [MIN_SPLICED + 1, 4095],
    [131072, 2 * MiB],
    [255 * 4096, 0],
    [254 * 4096, 1],
    [131072, 3 * MiB], // ends with the file
    [131072, 3 * MiB - 4096],
    [131072, 3 * MiB + 17],
    [131072, 2 ** 45],
  ]
  let sent = 0
  for (const [length, pos] of cases) {
    const got = r.reply(length, pos)
    const due = content.subarray(pos, pos + length)
    t.equal(got?.readUInt32LE(0), HEADER + due.length, `${length} at ${pos}`)
    t.equal(got?.readUInt32LE(8), 7)
    t.ok(got?.subarray(HEADER).equals(due))
    t.equal(r.pipe.sent, ++sent)
    t.notOk(r.pipe.loaded)
  }
})

t.test('replies without a pipe', async t => {
  const r = rig(t, bytes(100_000))
  t.notOk(r.pipe.accepts(MIN_SPLICED - 1))
  t.ok(r.pipe.accepts(MIN_SPLICED))
  t.equal(r.pipe.load(r.rep, r.fd, MiB, 0), -1, 'more than the pipe holds')
  t.equal(r.pipe.load(r.rep, -1, 65536, 0), -1, 'a file that is not there')
  t.notOk(r.pipe.loaded)
  t.ok(r.reply(65536, 0), 'nothing of it is left')
  const directory = fs.openSync(r.dir, 'r')
  t.equal(r.pipe.load(r.rep, directory, 65536, 0), -1)
  fs.closeSync(directory)
  t.notOk(r.pipe.accepts(MIN_SPLICED), 'where files cannot be spliced, no more is tried')
})

t.test('a refused reply leaves the pipe empty', async t => {
  const r = rig(t, bytes(200_000))
  r.rep.header(HEADER + 65536, 0, 7, 0)
  t.equal(r.pipe.load(r.rep, r.fd, 65536, 0), 65536)
  t.equal(r.pipe.send(r.fd, HEADER + 65536), -E.EBADF)
  t.notOk(r.pipe.loaded)
  t.ok(r.reply(70_000, 65536)?.subarray(HEADER).equals(bytes(200_000).subarray(65536, 135_536)))
  r.pipe.stop()
  t.notOk(r.pipe.accepts(MIN_SPLICED))
})

t.test('the file keeps its pages and its content', async t => {
  const content = bytes(131072)
  const r = rig(t, content)
  for (let i = 0; i < 3; i++) t.ok(r.reply(131072, 0)?.subarray(HEADER).equals(content))
  t.ok(fs.readFileSync(`${r.dir}/file`).equals(content))
})

const count = (): number => fs.readdirSync('/proc/self/fd').length

t.test('descriptors are closed', async t => {
  const r = rig(t, bytes(100_000))
  const before = count()
  r.reply(65536, 0)
  t.equal(count(), before + 2)
  r.pipe.close()
  r.pipe.close()
  t.equal(count(), before)
})

/** Direct writes together with buffered reads. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import t from 'tap'
import { Aio, alignedBuffer } from '../helpers/aio.js'
import { directories, serve, skipMounts, test } from '../helpers/mount.js'
import * as sys from '../helpers/syscalls.js'
import { isNative } from '../helpers/transport.js'

const { O } = sys
const skip = skipMounts || (isNative() && 'not with fuse-native')
const SIZE = 640 * 1024
const ROUNDS = 1500
const READERS = 3

for (const options of ['io=cached', 'io=cached,writeback=0', 'io=passthrough']) {
  test(t, `asynchronous direct writes are visible at once, ${options}`, { skip }, async t => {
    const f = directories(t, 'direct')
    fs.writeFileSync(`${f.lower}/file`, Buffer.alloc(SIZE))
    await serve(t, f, '-o', options)
    const file = `${f.merged}/file`
    const going = `${f.top}/going`
    fs.writeFileSync(going, '')
    // A handle from before the copy-up. As long as it is open, every handle uses the page cache.
    const first = sys.open(file, O.RDONLY)
    const readers = Array.from({ length: READERS }, () =>
      once(spawn('sh', ['-c', `while [ -e ${going} ]; do cat ${file} >/dev/null; done`]), 'exit'),
    )
    const aio = new Aio()
    const fd = sys.open(file, O.RDWR | O.DIRECT)
    const buffer = alignedBuffer(SIZE)
    const seen = Buffer.alloc(SIZE)
    let stale = 0
    for (let round = 1; round <= ROUNDS && stale === 0; round++) {
      buffer.fill(round & 0xff)
      if (aio.pwrite(fd, buffer, 0) !== SIZE) t.fail(`round ${round} was not written`)
      sys.pread(first, seen, 0)
      if (!seen.equals(buffer)) stale = round
    }
    t.equal(stale, 0, 'the round in which old data was read')
    fs.rmSync(going)
    await Promise.all(readers)
    aio.close()
    sys.close(fd)
    sys.close(first)
  })
}

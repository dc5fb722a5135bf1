/**
 * Prefill: the data of short files is pushed into the page cache with the reply to their first
 * OPEN. No READ requests are sent, and programs read the files' content.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import t from 'tap'
import { counters, directories, serve, skipMounts, test, type Served } from '../helpers/mount.js'
import * as sys from '../helpers/syscalls.js'
import { isNative } from '../helpers/transport.js'

const { O } = sys
const skip = skipMounts || (isNative() && 'not with fuse-native')
const MODES = ['io=cached', 'io=cached,writeback=0', 'io=passthrough'] as const
const LONGEST = 32 * 1024
const SIZES = [1, 511, 4095, 4096, 4097, 8192, 20_000, LONGEST - 1, LONGEST]

const bytes = (length: number, seed: number): Buffer => {
  const words = new Uint32Array(Math.ceil(length / 4))
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + 1, 2_654_435_761) ^ seed
  return Buffer.from(words.buffer, 0, length)
}

const readsOf = async (server: Served): Promise<number> => (await counters(server))['op.READ'] ?? 0

for (const options of MODES) {
  test(t, `files of many sizes, ${options}`, { skip }, async t => {
    const f = directories(t, 'store')
    SIZES.forEach(size => fs.writeFileSync(`${f.lower}/${size}`, bytes(size, 1)))
    const long = bytes(LONGEST + 1, 2)
    fs.writeFileSync(`${f.lower}/long`, long)
    fs.writeFileSync(`${f.lower}/empty`, '')
    const server = await serve(t, f, '-o', options)
    for (let again = 0; again < 2; again++)
      SIZES.forEach(size =>
        t.ok(fs.readFileSync(`${f.merged}/${size}`).equals(bytes(size, 1)), `${size} bytes`),
      )
    t.equal(fs.readFileSync(`${f.merged}/empty`).length, 0)
    const { 'op.READ': reads = 0, 'io.prefilled': prefilled } = await counters(server)
    t.equal(reads, 0)
    t.equal(prefilled, SIZES.length, 'each once')
    t.ok(fs.readFileSync(`${f.merged}/long`).equals(long))
    t.ok((await readsOf(server)) > 0, 'longer files are read by READ requests')
    // The kernel may drop the pages of an inode that it keeps.
    sys.mount('none', f.merged, 'none', sys.MS.REMOUNT, '')
    SIZES.forEach(size => t.ok(fs.readFileSync(`${f.merged}/${size}`).equals(bytes(size, 1))))
  })

  test(t, `changes before, during and after, ${options}`, { skip }, async t => {
    const f = directories(t, 'store')
    const old = bytes(5000, 1)
    const names = ['cut', 'longer', 'written', 'open', 'mode', 'replaced', 'mapped']
    for (const name of [...names, 'other']) fs.writeFileSync(`${f.lower}/${name}`, old)
    const server = await serve(t, f, '-o', options)
    const at = (name: string): string => `${f.merged}/${name}`
    for (const name of names) fs.statSync(at(name))
    const due = new Map<string, Buffer>()
    fs.truncateSync(at('cut'), 4500)
    due.set('cut', old.subarray(0, 4500))
    fs.truncateSync(at('longer'), 9000)
    due.set('longer', Buffer.concat([old, Buffer.alloc(4000)]))
    const part = Buffer.from('written before anybody has read it')
    const fd = sys.open(at('written'), O.WRONLY)
    sys.pwrite(fd, part, 4090)
    const written = Buffer.from(old)
    part.copy(written, 4090)
    due.set('written', written)
    // A reader first, then a writer, then another reader.
    const reader = sys.open(at('open'), O.RDONLY)
    fs.writeFileSync(at('open'), part)
    due.set('open', part)
    fs.chmodSync(at('mode'), 0o600)
    due.set('mode', old)
    fs.renameSync(at('other'), at('replaced'))
    due.set('replaced', old)
    const map = sys.open(at('mapped'), O.RDWR)
    sys.withMapping(map, 5000, 3, sys.MAP.SHARED, 0, view => part.copy(view, 100))
    const mapped = Buffer.from(old)
    part.copy(mapped, 100)
    due.set('mapped', mapped)
    for (const [name, content] of due) t.ok(fs.readFileSync(at(name)).equals(content), name)
    const buf = Buffer.alloc(6000)
    const n = sys.pread(reader, buf, 0)
    t.ok(buf.subarray(0, n).equals(part), 'it is visible through an older descriptor, too')
    for (const one of [fd, reader, map]) sys.close(one)
    await server.unmount()
    for (const [name, content] of due) {
      t.ok(fs.readFileSync(`${f.upper}/${name}`).equals(content), `${name} in the layer`)
    }
    for (const name of names) t.ok(fs.readFileSync(`${f.lower}/${name}`).equals(old), name)
  })

  test(t, `many simultaneous readers of the same files, ${options}`, { skip }, async t => {
    const f = directories(t, 'store')
    const count = 400
    for (let i = 0; i < count; i++) fs.writeFileSync(`${f.lower}/${i}`, bytes(1 + i * 80, i))
    await serve(t, f, '-o', options)
    for (let round = 0; round < 3; round++) {
      const ends = [1, 2, 3, 4, 5, 6].map(async () => {
        const child = spawn('diff', ['-r', f.lower, f.merged], { stdio: 'ignore' })
        const [status] = (await once(child, 'exit')) as [number | null]
        t.equal(status, 0)
      })
      await Promise.all(ends)
      // This drops names, inodes and pages.
      sys.mount('none', f.merged, 'none', sys.MS.REMOUNT, '')
      fs.renameSync(`${f.merged}/0`, `${f.merged}/x`)
      fs.renameSync(f.merged + '/x', `${f.merged}/0`)
    }
  })
}

const longer = (size: number): Buffer => Buffer.concat([bytes(size, 3), Buffer.from('more')])

test(t, 'files of the upper layer, cached', { skip }, async t => {
  const f = directories(t, 'store')
  SIZES.forEach(size => fs.writeFileSync(`${f.upper}/${size}`, bytes(size, 3)))
  const server = await serve(t, f, '-o', 'io=cached')
  SIZES.forEach(size => t.ok(fs.readFileSync(`${f.merged}/${size}`).equals(bytes(size, 3))))
  t.equal(await readsOf(server), 0)
  // Later writes go to these pages and to the file.
  for (const size of SIZES) fs.appendFileSync(`${f.merged}/${size}`, 'more')
  SIZES.forEach(size => t.ok(fs.readFileSync(`${f.merged}/${size}`).equals(longer(size))))
  await server.unmount()
  SIZES.forEach(size => t.ok(fs.readFileSync(`${f.upper}/${size}`).equals(longer(size))))
})

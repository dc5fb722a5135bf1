/** Large data: replies and requests that go through a pipe contain the bytes of the files. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import t from 'tap'
import { directories, openIn, serve, skipMounts, test, waitUntil } from '../helpers/mount.js'
import * as sys from '../helpers/syscalls.js'
import { isNative } from '../helpers/transport.js'

const { O } = sys
const KiB = 1024
const MiB = 1024 * KiB

/** Pseudo-random numbers below `limit`, the same in every run. */
const randomly = (seed: number): ((limit: number) => number) => {
  let state = seed
  return limit => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
}

const bytes = (length: number, seed: number): Buffer => {
  const words = new Uint32Array(Math.ceil(length / 4))
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + seed, 2_654_435_761)
  return Buffer.from(words.buffer, 0, length)
}

/** The number of pipe descriptors of a process. */
const pipes = (pid: number): number =>
  fs.readdirSync(`/proc/${pid}/fd`).filter(fd => {
    try {
      return fs.readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith('pipe:')
    } catch {
      return false // closed in the meantime
    }
  }).length

const SIZES = [
  64 * KiB - 1,
  64 * KiB,
  64 * KiB + 1,
  128 * KiB,
  132 * KiB + 1,
  MiB - 1,
  MiB,
  MiB + 4097,
  3 * MiB + 5,
]

for (const io of ['cached', 'passthrough']) {
  const given = isNative() ? [] : ['-o', `io=${io}`]

  test(t, `files of many sizes, ${io}`, { skip: skipMounts }, async t => {
    const f = directories(t, 'bulk')
    SIZES.forEach((size, i) => fs.writeFileSync(`${f.lower}/${size}`, bytes(size, i)))
    const hollow = bytes(2 * MiB, 99).fill(0, 8 * KiB, MiB)
    const sparse = fs.openSync(`${f.lower}/sparse`, 'w')
    fs.writeSync(sparse, hollow, 0, 8 * KiB, 0)
    fs.writeSync(sparse, hollow, MiB, MiB, MiB)
    fs.ftruncateSync(sparse, 4 * MiB)
    fs.closeSync(sparse)

    const server = await serve(t, f, ...given)
    // The pipe has two descriptors. It is created for the first large reply.
    const before = pipes(server.pid)
    SIZES.forEach((size, i) => {
      const got = fs.readFileSync(`${f.merged}/${size}`)
      t.ok(got.equals(bytes(size, i)), `${size} bytes`)
    })
    if (!isNative()) t.ok(pipes(server.pid) >= before + 2, 'through a pipe')
    const got = fs.readFileSync(`${f.merged}/sparse`)
    t.equal(got.length, 4 * MiB)
    t.ok(got.subarray(0, 2 * MiB).equals(hollow))
    t.ok(got.subarray(2 * MiB).equals(Buffer.alloc(2 * MiB)))
    t.equal(fs.statSync(`${f.lower}/sparse`).blocks < 2.5 * (MiB / 512), true, 'its hole is there')

    // Direct reads bypass the page cache, so the requests have these lengths and offsets.
    const size = SIZES.at(-1)!
    const fd = sys.open(`${f.merged}/${size}`, O.RDONLY | O.DIRECT)
    for (const [length, pos] of [
      [MiB, 0],
      [MiB, 512],
      [64 * KiB, 3 * MiB],
      [256 * KiB, 3 * MiB - 4096],
    ] as const) {
      if (fd < 0) break // the layers' file system has no O_DIRECT
      const buf = sys.alignedBuffer(length)
      const due = bytes(size, SIZES.length - 1).subarray(pos, pos + length)
      const n = sys.pread(fd, buf, pos)
      t.equal(n, due.length, `${length} at ${pos}, direct`)
      t.ok(buf.subarray(0, Math.max(n, 0)).equals(due))
    }
    if (fd >= 0) sys.close(fd)
    SIZES.forEach((length, i) =>
      t.ok(fs.readFileSync(`${f.lower}/${length}`).equals(bytes(length, i)), 'as it was'),
    )
  })

  test(t, `simultaneous readers, and killed ones, ${io}`, { skip: skipMounts }, async t => {
    const f = directories(t, 'bulk')
    const content = bytes(24 * MiB + 3, 5)
    for (const name of ['a', 'b']) fs.writeFileSync(`${f.lower}/${name}`, content)
    await serve(t, f, ...given)
    const compare = async (): Promise<void> => {
      const ends = ['a', 'b', 'a', 'b'].map(async name => {
        const child = spawn('cmp', [`${f.lower}/${name}`, `${f.merged}/${name}`])
        const [status] = (await once(child, 'exit')) as [number | null]
        t.equal(status, 0, name)
      })
      await Promise.all(ends)
    }
    for (let i = 0; i < 12; i++) {
      const child = spawn('cat', [`${f.merged}/a`, `${f.merged}/b`], { stdio: 'ignore' })
      const end = once(child, 'exit')
      await new Promise(done => setTimeout(done, i))
      child.kill('SIGKILL')
      await end
      sys.mount('none', f.merged, 'none', sys.MS.REMOUNT, '') // this drops the pages of the mount
    }
    await compare()
  })

  test(t, `random reads and writes compared with a model, ${io}`, { skip: skipMounts }, async t => {
    const f = directories(t, 'bulk')
    const LIMIT = 3 * MiB
    let model = Buffer.from(bytes(2 * MiB + 77, 8))
    fs.writeFileSync(`${f.lower}/f`, model)
    const server = await serve(t, f, ...given)
    const at = `${f.merged}/f`
    const random = randomly(4)
    const resize = (size: number): void => {
      const next = Buffer.alloc(size)
      model.copy(next)
      model = next
    }
    const fd = sys.open(at, O.RDWR)
    t.ok(fd >= 0)
    const wrong: string[] = []
    for (let i = 0; i < 500; i++) {
      const pos = random(LIMIT)
      const length = 1 + random(random(2) === 0 ? 9000 : 600 * KiB)
      const what = random(8)
      if (what <= 2) {
        const buf = Buffer.alloc(length)
        const n = sys.pread(fd, buf, pos)
        if (!buf.subarray(0, n).equals(model.subarray(pos, pos + length)))
          wrong.push(`${i}: read ${length} at ${pos}`)
      } else if (what <= 4) {
        const data = bytes(length, i)
        if (pos + length > model.length) resize(pos + length)
        data.copy(model, pos)
        if (sys.pwrite(fd, data, pos) !== length) wrong.push(`${i}: write ${length} at ${pos}`)
      } else if (what === 5) {
        resize(pos)
        if (sys.ftruncate(fd, pos) !== 0) wrong.push(`${i}: truncate to ${pos}`)
      } else if (what === 6 && model.length > 0) {
        const value = i & 0xff
        const place = random(model.length)
        model[place] = value
        sys.withMapping(fd, model.length, 3, sys.MAP.SHARED, 0, view => (view[place] = value))
      } else if (random(3) === 0) {
        sys.fsync(fd)
        sys.mount('none', f.merged, 'none', sys.MS.REMOUNT, '')
      } else if (!fs.readFileSync(at).equals(model)) {
        wrong.push(`${i}: all of it`)
      }
    }
    sys.close(fd)
    t.same(wrong, [])
    t.ok(fs.readFileSync(at).equals(model))
    await server.unmount()
    t.ok(fs.readFileSync(`${f.upper}/f`).equals(model), 'in the layer')
  })
}

for (const options of ['io=cached', 'io=cached,writeback=0', 'noopen']) {
  const skip = skipMounts || (isNative() && 'not with fuse-native')

  test(t, `written files, ${options}`, { skip }, async t => {
    const f = directories(t, 'bulk')
    const lower = bytes(5 * MiB + 3, 1)
    for (const name of ['a', 'b']) fs.writeFileSync(`${f.lower}/${name}`, lower)
    const server = await serve(t, f, '-o', options)
    const fds = SIZES.map(size => sys.open(`${f.merged}/${size}`, O.CREAT | O.RDWR, 0o644))
    // The files are written in turns, so that their requests are interleaved.
    const step = 200_003
    for (let at = 0; at < Math.max(...SIZES); at += step) {
      SIZES.forEach((size, i) => {
        const part = bytes(size, i).subarray(at, at + step)
        if (part.length > 0) t.equal(sys.pwrite(fds[i]!, part, at), part.length)
      })
    }
    for (const fd of fds) t.equal(sys.fsync(fd), 0)
    // A write that causes a copy-up waits for it with its data.
    const part = bytes(3 * MiB, 7)
    const expected = Buffer.from(lower)
    part.copy(expected, MiB + 1)
    for (const name of ['a', 'b']) {
      const fd = sys.open(`${f.merged}/${name}`, O.RDWR)
      t.equal(sys.pwrite(fd, part, MiB + 1), part.length)
      t.equal(sys.close(fd), 0)
    }
    for (const fd of fds) sys.close(fd)
    sys.mount('none', f.merged, 'none', sys.MS.REMOUNT, '') // this drops the pages of the mount
    const right = (top: string): void => {
      SIZES.forEach((size, i) =>
        t.ok(fs.readFileSync(`${top}/${size}`).equals(bytes(size, i)), `${top}: ${size}`),
      )
      for (const name of ['a', 'b']) t.ok(fs.readFileSync(`${top}/${name}`).equals(expected), name)
    }
    right(f.merged)
    await server.unmount()
    right(f.upper)
    for (const name of ['a', 'b']) t.ok(fs.readFileSync(`${f.lower}/${name}`).equals(lower))
  })

  test(t, `no space for written data, ${options}`, { skip }, async t => {
    const f = directories(t, 'bulk')
    sys.mount('none', f.top, 'tmpfs', 0, 'size=24m')
    f.before(() => void sys.umount(f.top, sys.MNT.DETACH))
    for (const dir of ['lower', 'upper', 'work', 'merged']) fs.mkdirSync(`${f.top}/${dir}`)
    const server = await serve(t, f, '-o', options)
    const data = bytes(20 * MiB, 3)
    fs.writeFileSync(`${f.top}/filler`, Buffer.alloc(16 * MiB))
    const fd = sys.open(`${f.merged}/f`, O.CREAT | O.RDWR, 0o644)
    const wrote = sys.pwrite(fd, data, 0)
    t.ok(
      [wrote, sys.fsync(fd)].some(result => result < data.length && result !== 0),
      'a call gets the error',
    )
    fs.unlinkSync(`${f.top}/filler`)
    t.equal(sys.pwrite(fd, data, 0), data.length)
    t.equal(sys.fsync(fd), 0)
    sys.close(fd)
    t.ok(fs.readFileSync(`${f.merged}/f`).equals(data))
    await server.unmount()
    t.ok(fs.readFileSync(`${f.upper}/f`).equals(data))
  })
}

test(t, 'the mount ends while data is read', { skip: skipMounts }, async t => {
  const f = directories(t, 'bulk')
  const data = bytes(48 * MiB, 1)
  fs.writeFileSync(`${f.lower}/f`, data)
  const server = await serve(t, f)
  const child = spawn('cmp', ['-', `${f.merged}/f`], { stdio: ['pipe', 'ignore', 'ignore'] })
  const end = once(child, 'exit')
  child.stdin.write(data.subarray(0, 24 * MiB))
  await waitUntil('it is open', () => openIn(child.pid ?? 0, f.merged) > 0)
  sys.umount(f.merged, sys.MNT.DETACH)
  child.stdin.end(data.subarray(24 * MiB))
  t.same(await end, [0, null], 'an open file is served until it is closed')
  t.equal((await server.ended).status, 0)
})

/**
 * A file of a layer that is changed beneath a live union. Programs read either the old or the new
 * content, never a mixture.
 */

import * as fs from 'node:fs'
import t from 'tap'
import { directories, serve, skipMounts, test } from '../helpers/mount.js'
import * as sys from '../helpers/syscalls.js'
import { isNative } from '../helpers/transport.js'

const { O } = sys
const skip = skipMounts || (isNative() && 'not with fuse-native')
const MODES = ['io=passthrough', 'io=cached', 'io=cached,writeback=0'] as const

/** Content whose every byte shows its version. */
const version = (n: number, length: number): Buffer => Buffer.alloc(length, 0x30 + n)

const LENGTHS = [2, 5000, 200_000] as const
const LATER = [2, 5000, 200_000, 300_000] as const

/** The ways of changing the file. */
const CHANGES: Record<string, (file: string, now: Buffer) => void> = {
  rewritten: (file, now) => fs.writeFileSync(file, now),
  'rewritten, its time kept': (file, now) => {
    const { atime, mtime } = fs.statSync(file)
    fs.writeFileSync(file, now)
    fs.utimesSync(file, atime, mtime)
  },
  replaced: (file, now) => {
    fs.writeFileSync(`${file}.new`, now)
    fs.renameSync(`${file}.new`, file)
  },
  'removed and made': (file, now) => {
    fs.rmSync(file)
    fs.writeFileSync(file, now)
  },
}

/** The use of the file through the mount before the change. */
const BEFORE: Record<string, (file: string) => void> = {
  'looked at': file => void fs.statSync(file),
  read: file => void fs.readFileSync(file),
  'read in part': file => {
    const fd = sys.open(file, O.RDONLY)
    sys.pread(fd, Buffer.alloc(100), 0)
    sys.close(fd)
  },
  mapped: file => {
    const fd = sys.open(file, O.RDONLY)
    sys.withMapping(fd, 1, sys.PROT.READ, sys.MAP.PRIVATE, 0, view => void view[0])
    sys.close(fd)
  },
}

/** Every case has a file of its own. */
const cases = Object.keys(BEFORE).flatMap(before =>
  Object.keys(CHANGES).flatMap(change =>
    LENGTHS.flatMap(old => LATER.map(now => ({ before, change, old, now }))),
  ),
)
const nameOf = (at: number): string => `file${at}`

/** Reads as programs do: to the end of the file, regardless of the size in stat. */
const readAll = (file: string): Buffer => {
  const fd = sys.open(file, O.RDONLY)
  if (fd < 0) return Buffer.from(`open: ${fd}`)
  const buffer = Buffer.alloc(400_000)
  let done = 0
  for (;;) {
    const n = sys.read(fd, buffer.subarray(done, done + 65536))
    if (n < 0) return Buffer.from(`read: ${n}`)
    if (n === 0) break
    done += n
  }
  sys.close(fd)
  return buffer.subarray(0, done)
}

for (const mode of MODES) {
  for (const layer of ['lower', 'upper'] as const) {
    for (const timeout of ['timeout=0', 'timeout=1000000'] as const) {
      test(t, `a file of the ${layer} layer, ${mode}, ${timeout}`, { skip }, async t => {
        const f = directories(t, 'changed')
        const beneath = layer === 'lower' ? f.lower : f.upper
        cases.forEach(({ old }, at) =>
          fs.writeFileSync(`${beneath}/${nameOf(at)}`, version(1, old)),
        )
        await serve(t, f, '-o', `${mode},${timeout}`)
        const wrong: string[] = []
        cases.forEach(({ before, change, old, now }, at) => {
          const file = `${f.merged}/${nameOf(at)}`
          BEFORE[before]!(file)
          const was = version(1, old)
          const is = version(2, now)
          CHANGES[change]!(`${beneath}/${nameOf(at)}`, is)
          // The kernel revalidates attributes: at once with timeout=0, otherwise after a close.
          const { size } = fs.statSync(file)
          const got = readAll(file)
          const mapped = readMapped(file)
          const told = `${before}, ${change}, ${old} -> ${now} bytes: size ${size}, ${got.length} bytes read`
          const fits = (bytes: Buffer): boolean => bytes.equals(was) || bytes.equals(is)
          if (!fits(got)) wrong.push(`${told}, ${[...new Set(got)].join(' ')}`)
          if (!fits(mapped))
            wrong.push(`${told}, mapped ${mapped.length}: ${[...new Set(mapped)].join(' ')}`)
          if (timeout === 'timeout=0' && !got.equals(is)) wrong.push(`${told}: not what it is`)
        })
        t.same(wrong.slice(0, 20), [])
      })
    }
  }
}

const ESTALE = -116

for (const mode of MODES) {
  test(t, `a file that is open during the change, ${mode}`, { skip }, async t => {
    const f = directories(t, 'changed')
    const all = cases.filter(({ before }) => before === 'read')
    all.forEach(({ old }, at) => fs.writeFileSync(`${f.lower}/${nameOf(at)}`, version(1, old)))
    await serve(t, f, '-o', mode)
    const wrong: string[] = []
    all.forEach(({ change, old, now }, at) => {
      const file = `${f.merged}/${nameOf(at)}`
      const fd = sys.open(file, O.RDONLY)
      sys.pread(fd, Buffer.alloc(100), 0)
      CHANGES[change]!(`${f.lower}/${nameOf(at)}`, version(2, now))
      const stated = sys.fstat(fd)
      const room = Buffer.alloc(400_000)
      const n = sys.pread(fd, room, 0)
      const got = room.subarray(0, Math.max(0, n))
      // A short result is correct if the rest is not available any more.
      const rest = n < 0 || n === old ? n : sys.pread(fd, Buffer.alloc(1), n)
      const was = version(1, old)
      const fits =
        got.equals(version(2, now)) || got.equals(rest === ESTALE ? was.subarray(0, n) : was)
      const size = typeof stated === 'number' ? stated : stated.size
      if (!fits)
        wrong.push(
          `${change}, ${old} -> ${now}: size ${size}, ${n}, ${[...new Set(got)].join(' ')}`,
        )
      // Opens the file again through its descriptor, as a program that opens /dev/stdin does.
      const again = sys.open(`/proc/self/fd/${fd}`, O.RDONLY)
      if (again < 0 && again !== ESTALE) wrong.push(`${change}: open again: ${again}`)
      sys.close(again)
      sys.close(fd)
    })
    t.same(wrong.slice(0, 20), [])
  })

  test(t, `writes after the change, ${mode}`, { skip }, async t => {
    const f = directories(t, 'changed')
    const write = Buffer.from('written')
    for (const layer of ['lower', 'upper'] as const)
      for (const name of ['append', 'appended, read before', 'mode', 'renamed', 'attribute'])
        fs.writeFileSync(`${f[layer]}/${layer} ${name}`, version(1, 5000))
    await serve(t, f, '-o', mode)
    for (const layer of ['lower', 'upper'] as const) {
      const change = (name: string, by: Buffer, before = true): string => {
        const file = `${f.merged}/${layer} ${name}`
        if (before) fs.readFileSync(file)
        else fs.statSync(file)
        fs.writeFileSync(`${f[layer]}/${layer} ${name}`, by)
        return file
      }
      for (const name of ['append', 'appended, read before']) {
        const file = change(name, version(2, 10), name !== 'append')
        fs.appendFileSync(file, write)
        const due = Buffer.concat([version(2, 10), write])
        t.ok(fs.readFileSync(file).equals(due), `${layer} ${name}: through the mount`)
        t.ok(
          fs.readFileSync(`${f.upper}/${layer} ${name}`).equals(due),
          `${layer} ${name}: on disk`,
        )
      }
      let file = change('mode', version(2, 6000))
      fs.chmodSync(file, 0o600)
      t.equal(fs.statSync(file).mode & 0o777, 0o600)
      t.ok(fs.readFileSync(file).equals(version(2, 6000)), `${layer}: after chmod`)
      file = change('attribute', version(2, 40))
      t.equal(sys.setxattr({ path: file, follow: true }, 'user.x', write, 0), 0)
      const fits = (bytes: Buffer, now: Buffer): boolean =>
        bytes.equals(version(1, 5000)) || bytes.equals(now)
      t.ok(fits(fs.readFileSync(file), version(2, 40)), `${layer}: after setxattr`)
      file = change('renamed', version(2, 6000))
      fs.renameSync(file, `${f.merged}/to ${layer}`)
      const renamed = fs.readFileSync(`${f.merged}/to ${layer}`)
      t.ok(fits(renamed, version(2, 6000)), `${layer}: renamed`)
    }
  })

  test(t, `several names of one file, and symlinks, ${mode}`, { skip }, async t => {
    const f = directories(t, 'changed')
    fs.writeFileSync(`${f.lower}/a`, version(1, 5000))
    fs.mkdirSync(`${f.lower}/directory`)
    fs.linkSync(`${f.lower}/a`, `${f.lower}/directory/b`)
    fs.symlinkSync('short', `${f.lower}/longer`)
    fs.symlinkSync('a-longer-target', `${f.lower}/shorter`)
    await serve(t, f, '-o', `${mode},timeout=0`)
    const [a, b] = [`${f.merged}/a`, `${f.merged}/directory/b`]
    fs.readFileSync(a)
    fs.readFileSync(b)
    fs.readlinkSync(`${f.merged}/longer`)
    fs.readlinkSync(`${f.merged}/shorter`)
    fs.writeFileSync(`${f.lower}/a`, version(2, 7000))
    t.ok(fs.readFileSync(b).equals(version(2, 7000)))
    t.ok(fs.readFileSync(a).equals(version(2, 7000)))
    t.equal(fs.statSync(a).ino, fs.statSync(b).ino)
    fs.chmodSync(b, 0o600)
    fs.appendFileSync(a, 'x')
    t.equal(fs.statSync(a).mode & 0o777, 0o600)
    t.equal(fs.statSync(b).size, 7001)
    t.equal(fs.statSync(a).nlink, 2)
    for (const [name, target] of [
      ['longer', 'a-longer-target'],
      ['shorter', 'short'],
    ] as const) {
      fs.rmSync(`${f.lower}/${name}`)
      fs.symlinkSync(target, `${f.lower}/${name}`)
      t.equal(fs.readlinkSync(`${f.merged}/${name}`), target)
    }
  })
}

/** Reads a file through a mapping of the size in fstat. */
const readMapped = (file: string): Buffer => {
  const fd = sys.open(file, O.RDONLY)
  const stated = sys.fstat(fd)
  const size = typeof stated === 'number' ? 0 : stated.size
  let bytes = Buffer.alloc(0)
  sys.withMapping(fd, size, sys.PROT.READ, sys.MAP.PRIVATE, 0, view => {
    bytes = Buffer.from(view)
  })
  sys.close(fd)
  return bytes
}

/** Offsets and sizes of 2^53 and more, compared with kernel overlayfs on the same file system. */

import * as fs from 'node:fs'
import t, { type Test } from 'tap'
import { scratch, serve, skipMounts, test, type Directories } from '../helpers/mount.js'
import { skipParity } from '../helpers/parity.js'
import * as sys from '../helpers/syscalls.js'
import { isNative } from '../helpers/transport.js'

const { O, SEEK, FALLOC } = sys
const skip = skipMounts || skipParity || (isNative() && 'not with fuse-native')

const SAFE = 2n ** 53n
const END = 2n ** 63n - 1n
const OFFSETS = [
  SAFE - 70_000n,
  SAFE - 3n,
  SAFE - 1n,
  SAFE,
  SAFE + 1n,
  SAFE + 4096n,
  2n ** 60n + 77n,
  2n ** 62n - 5n,
  END - 200_000n,
  END - 8000n,
  END - 1n,
  END,
]
/** More than the size of a pipe, and less than a page. */
const LENGTHS = [5, 150_000]

const bytes = (length: number): Buffer => {
  const buffer = Buffer.alloc(length)
  for (let i = 0; i < length; i++) buffer[i] = 1 + (i % 251)
  return buffer
}

/** A short form of a buffer's content. */
const shape = (buffer: Buffer): string => {
  const from = buffer.findIndex(byte => byte !== 0)
  const to = buffer.findLastIndex(byte => byte !== 0)
  return `${from}..${to} ${buffer.reduce((sum, byte) => (sum * 31 + byte) % 1_000_003, 7)}`
}

const sizeOf = (file: string): bigint => fs.statSync(file, { bigint: true }).size

/** Calls on a file, with the result of each. */
const perform = (top: string, at: bigint, length: number): string[] => {
  const log: string[] = []
  const note = (what: string, result: unknown): void => void log.push(`${what}: ${String(result)}`)
  const file = `${top}/new`
  const room = Buffer.alloc(length + 10_000)
  const look = (fd: number, from: bigint): void => {
    room.fill(0)
    note(`pread ${from}`, sys.pread(fd, room, from))
    note('read', shape(room))
  }
  let fd = sys.open(file, O.CREAT | O.RDWR, 0o644)
  note('pwrite', sys.pwrite(fd, bytes(length), at))
  note('size', sizeOf(file))
  look(fd, at - 5000n)
  look(fd, at)
  note('data', sys.lseek(fd, 0, SEEK.DATA))
  note('data from there', sys.lseek(fd, at, SEEK.DATA))
  note('hole', sys.lseek(fd, at, SEEK.HOLE))
  note('end', sys.lseek(fd, 0, SEEK.END))
  note('ftruncate', sys.ftruncate(fd, at + 2n))
  note('size', sizeOf(file))
  look(fd, at - 10n)
  note('truncate', sys.truncate(file, at > 10n ? at - 10n : at))
  note('size', sizeOf(file))
  note('fallocate', sys.fallocate(fd, 0, at, 4096))
  note('size', sizeOf(file))
  note('keeping the size', sys.fallocate(fd, FALLOC.KEEP_SIZE, at, 8192n))
  note('punch', sys.fallocate(fd, FALLOC.KEEP_SIZE | FALLOC.PUNCH_HOLE, at, 100n))
  note('size', sizeOf(file))
  sys.close(fd)
  // Read again and appended to.
  fd = sys.open(file, O.RDWR | O.APPEND)
  note('append', sys.write(fd, bytes(20)))
  note('size', sizeOf(file))
  look(fd, at)
  const other = sys.open(`${top}/other`, O.CREAT | O.RDWR, 0o644)
  sys.pwrite(other, bytes(length), 0)
  note('copy there', sys.copyFileRange(other, 0, fd, at, length))
  sys.close(fd)
  fd = sys.open(file, O.RDWR)
  note('copy there', sys.copyFileRange(other, 0, fd, at, length))
  look(fd, at)
  note('copy back', sys.copyFileRange(fd, at, other, 100, length))
  look(other, 0n)
  sys.close(other)
  sys.close(fd)
  fs.rmSync(file)
  fs.rmSync(`${top}/other`)
  return log
}

/** Calls on files of the lower layer. */
const performLower = (top: string, at: bigint): string[] => {
  const log: string[] = []
  const note = (what: string, result: unknown): void => void log.push(`${what}: ${String(result)}`)
  const file = `${top}/lower${at}`
  const room = Buffer.alloc(20_000)
  const look = (): void => {
    const fd = sys.open(file, O.RDONLY)
    room.fill(0)
    note('pread', sys.pread(fd, room, at - 10_000n))
    note('read', shape(room))
    note('data', sys.lseek(fd, 8 << 20, SEEK.DATA))
    sys.close(fd)
  }
  note('size', sizeOf(file))
  look()
  fs.chmodSync(file, 0o600)
  note('copied up', sizeOf(file))
  look()
  const fd = sys.open(file, O.RDWR)
  note('pwrite', sys.pwrite(fd, bytes(5), at))
  look()
  sys.close(fd)
  fs.writeFileSync(file, '')
  note('emptied', sizeOf(file))
  return log
}

const prepare = (t: Test, name: string): Directories => {
  const own = scratch(t, name)
  sys.mount('none', own.top, 'tmpfs', 0, '')
  own.before(() => void sys.umount(own.top, sys.MNT.DETACH))
  const [lower, upper, work, merged] = ['lower', 'upper', 'work', 'merged'].map(part => {
    fs.mkdirSync(`${own.top}/${part}`)
    return `${own.top}/${part}`
  }) as [string, string, string, string]
  for (const at of OFFSETS) {
    const fd = sys.open(`${lower}/lower${at}`, O.CREAT | O.RDWR, 0o644)
    sys.pwrite(fd, bytes(100), 0)
    sys.pwrite(fd, bytes(100), at - 100n)
    sys.close(fd)
  }
  const options = `lowerdir=${lower},upperdir=${upper},workdir=${work}`
  return { ...own, lower, upper, work, merged, options }
}

for (const mode of ['io=passthrough', 'io=cached', 'io=cached,writeback=0']) {
  test(t, `same results as the kernel, ${mode}`, { skip }, async t => {
    const kernel = prepare(t, 'far-kernel')
    sys.mount('overlay', kernel.merged, 'overlay', 0, kernel.options)
    kernel.before(() => void sys.umount(kernel.merged, 0))
    const own = prepare(t, 'far')
    await serve(t, own, '-o', mode)
    for (const at of OFFSETS) {
      for (const length of LENGTHS)
        t.same(
          perform(own.merged, at, length),
          perform(kernel.merged, at, length),
          `${length} bytes at ${at}`,
        )
      t.same(performLower(own.merged, at), performLower(kernel.merged, at), `a lower file, ${at}`)
    }
  })
}

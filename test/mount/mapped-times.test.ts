/**
 * The mtime of a file that is written through a shared mapping. The store or the write-back sets
 * it, and never overwrites a time that was set after the store.
 */

import * as fs from 'node:fs'
import t, { type Test } from 'tap'
import { kernelMounter, mounterFor } from '../differential/mounters.js'
import { Bench, skipKind, type Kind } from '../helpers/kinds.js'
import * as sys from '../helpers/syscalls.js'

const { O } = sys
const OLD = { sec: 1_500_000_000, nsec: 5 }
const SET = { sec: 1_600_000_000, nsec: 7 }
const nanoseconds = ({ sec, nsec }: sys.Time): bigint => BigInt(sec) * 1_000_000_000n + BigInt(nsec)

const KINDS: Kind[] = [
  { name: 'kernel overlayfs', kernel: true, mounter: kernelMounter },
  ...[
    'passthrough',
    'cached',
    'cached,writeback=0',
    'cached,noopen',
    'cached,noopen,writeback=0',
  ].map(io => ({
    name: `tsoverlay io=${io}`,
    kernel: false,
    mounter: mounterFor('tsoverlay', io),
  })),
]

/** A file of 8 bytes with an old mtime. */
const prepare = (path: string): void => {
  fs.writeFileSync(path, '12345678')
  sys.utimensat(sys.AT_FDCWD, path, OLD, OLD, 0)
}

/** Stores through a mapping and runs `after` before unmapping, which writes the page back. */
const store = (t: Test, fd: number, after: () => void): void => {
  const result = sys.withMapping(fd, 8, sys.PROT.READ | sys.PROT.WRITE, sys.MAP.SHARED, 0, view => {
    view[0] = 0x5a
    after()
    return 0
  })
  t.equal(result, 0)
}

const mtime = (b: Bench, name: string): bigint => b.stat(`${b.m}/${name}`).mtime
const stored = (b: Bench, name: string): bigint => b.stat(`${b.upper}/${name}`).mtime
const isNow = (time: bigint): boolean => time > nanoseconds(SET)

const sync = (fd: number) => () => {
  sys.fsync(fd)
  sys.close(fd)
}

const setTime = (path: string): number => sys.utimensat(sys.AT_FDCWD, path, SET, SET, 0)

for (const kind of KINDS)
  t.test(kind.name, { skip: skipKind(kind) }, async t => {
    const b = new Bench(kind)
    try {
      const names = ['moved', 'set', 'set-after', 'set-twice', 'reader', 'reader-set', 'held']
      for (const name of names) {
        prepare(`${b.lower}/${name}`)
        prepare(`${b.upper}/${name}-upper`)
      }
      prepare(`${b.upper}/privileged`)
      fs.chmodSync(`${b.upper}/privileged`, 0o6755)
      b.mount()
      for (const suffix of ['', '-upper']) {
        const path = (name: string): string => `${b.m}/${name}${suffix}`
        const check = (name: string, expected: 'now' | 'set', end: () => void): void => {
          const what = `${name}${suffix}`
          for (const when of ['before it is closed', 'at the end']) {
            if (when === 'at the end') end()
            const time = mtime(b, what)
            t.equal(
              expected === 'now' ? isNow(time) : time === nanoseconds(SET),
              true,
              `${what}: ${when}`,
            )
          }
          t.equal(stored(b, what), mtime(b, what), `${what}: what is shown is stored`)
        }

        let fd = b.open(path('moved'), O.RDWR)
        store(t, fd, () => {})
        check('moved', 'now', sync(fd))

        fd = b.open(path('set'), O.RDWR)
        const early = fd
        store(t, fd, () => t.equal(setTime(path('set')), 0))
        check('set', 'set', sync(early))

        fd = b.open(path('set-after'), O.RDWR)
        store(t, fd, () => {})
        t.equal(setTime(path('set-after')), 0)
        check('set-after', 'set', sync(fd))

        // Another store after that is another change.
        fd = b.open(path('set-twice'), O.RDWR)
        store(t, fd, () => t.equal(sys.futimens(fd, SET, SET), 0))
        store(t, fd, () => {})
        check('set-twice', 'now', sync(fd))

        let reader = b.open(path('reader'), O.RDONLY)
        fd = b.open(path('reader'), O.RDWR)
        store(t, fd, () => {})
        check('reader', 'now', sync(fd))
        sys.close(reader)

        reader = b.open(path('reader-set'), O.RDONLY)
        fd = b.open(path('reader-set'), O.RDWR)
        store(t, fd, () => t.equal(setTime(path('reader-set')), 0))
        check('reader-set', 'set', sync(fd))
        sys.close(reader)

        // The mapping outlives the descriptor.
        reader = b.open(path('held'), O.RDONLY)
        fd = b.open(path('held'), O.RDWR)
        store(t, fd, () => {
          sys.close(fd)
          t.equal(setTime(path('held')), 0)
        })
        check('held', 'set', () => sys.close(reader))
      }
      const fd = b.open(`${b.m}/privileged`, O.RDWR)
      store(t, fd, () => {})
      sys.close(fd)
      t.ok(isNow(mtime(b, 'privileged')))
      t.equal(b.stat(`${b.m}/privileged`).mode & 0o7777, 0o6755, 'a store removes no set-id bits')
    } finally {
      b.end()
    }
  })

/**
 * Operations whose duration depends on the size: a large file that is truncated or removed, and a
 * directory of many whiteouts that is removed or replaced. Other callers must not wait for them.
 */

import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import { freemem } from 'node:os'
import t, { type Test } from 'tap'
import {
  directories,
  outcomeOf,
  serve,
  skipMounts,
  test,
  type Directories,
} from '../helpers/mount.js'
import * as sys from '../helpers/syscalls.js'
import { isNative } from '../helpers/transport.js'

const MIB = 1 << 20
const LARGE = 512 * MIB
/**
 * The least number of other calls that must be answered during the operation. If they had to wait
 * it would be one or two.
 */
const SOME = 10

const skip = skipMounts || (freemem() < 3 * LARGE ? 'needs memory for a large file' : false)

/** Layers on a tmpfs of their own. */
const inMemory = (t: Test): Directories => {
  const f = directories(t, 'large')
  if (sys.mount('none', f.upper, 'tmpfs', 0, `size=${2 * LARGE}`) < 0) throw new Error('tmpfs')
  f.before(() => void sys.umount(f.upper, sys.MNT.DETACH))
  for (const name of ['u', 'w']) fs.mkdirSync(`${f.upper}/${name}`)
  const options = `lowerdir=${f.lower},upperdir=${f.upper}/u,workdir=${f.upper}/w`
  return { ...f, options }
}

const call = async (program: string, ...args: string[]): Promise<number | null> =>
  (await outcomeOf(spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] }))).status

/**
 * Counts the calls of other callers that start and end while `work` is in progress, until `isOver`.
 */
const answeredDuring = async (
  directory: string,
  work: () => Promise<unknown>,
  hasBegun: () => boolean,
  isOver: () => boolean,
): Promise<number> => {
  const end = work()
  let answered = 0
  for (let n = 0; !isOver(); n++) {
    const begun = hasBegun()
    await fs.promises.stat(`${directory}/no${n}`).catch(() => {})
    if (begun && !isOver()) answered++
  }
  await end
  return answered
}

for (const io of ['cached', 'passthrough']) {
  const given = isNative() ? [] : ['-o', `io=${io}`]

  test(t, `freeing the space of a large file, ${io}`, { skip }, async t => {
    const f = inMemory(t)
    const server = await serve(t, f, ...given)
    const file = `${f.merged}/large`
    const real = `${f.upper}/u/large`
    const ways: Record<string, (path: string) => Promise<unknown>> = {
      'truncate(2)': path =>
        call('python3', '-c', 'import os, sys; os.truncate(sys.argv[1], 5)', path),
      'ftruncate(2)': path => fs.promises.truncate(path, 5),
      O_TRUNC: path => fs.promises.writeFile(path, '12345'),
      'O_TRUNC without a right to write': path =>
        call('python3', '-c', 'import os, sys; os.open(sys.argv[1], os.O_TRUNC)', path),
      unlink: path => fs.promises.unlink(path),
      rename: async path => {
        fs.writeFileSync(`${f.merged}/small`, '12345')
        await fs.promises.rename(`${f.merged}/small`, path)
      },
      'the last descriptor': async path => {
        const open = await fs.promises.open(path)
        await fs.promises.unlink(path)
        await open.close()
      },
    }
    const free = fs.statfsSync(f.upper).bfree
    for (const [way, work] of Object.entries(ways)) {
      t.equal(await call('fallocate', '-l', String(LARGE), file), 0)
      fs.chmodSync(file, 0o6755)
      const answered = await answeredDuring(
        f.merged,
        () => work(file),
        () => (fs.statSync(real, { throwIfNoEntry: false })?.size ?? 0) < LARGE,
        () => fs.statfsSync(f.upper).bfree > free - 64,
      )
      t.ok(answered >= SOME, `${way}: ${answered}`)
      if (fs.existsSync(file)) fs.unlinkSync(file)
    }
    await server.unmount()
  })
}

/** Names of a lower directory, which the upper layer hides. */
const MANY = 20_000

const hideMany = (f: Directories, directory: string): void => {
  const [lower, upper] = [`${f.lower}/${directory}`, `${f.upper}/u/${directory}`]
  for (const path of [lower, upper]) fs.mkdirSync(path)
  fs.writeFileSync(`${lower}/0`, '')
  sys.mknodat(sys.AT_FDCWD, `${upper}/0`, 0o020000, 0, 0)
  for (let n = 1; n < MANY; n++) {
    fs.linkSync(`${lower}/0`, `${lower}/${n}`)
    fs.linkSync(`${upper}/0`, `${upper}/${n}`)
  }
}

for (const io of ['cached', 'passthrough']) {
  const given = isNative() ? [] : ['-o', `io=${io}`]

  test(t, `a directory of many whiteouts, ${io}`, { skip }, async t => {
    const f = inMemory(t)
    for (const directory of ['removed', 'replaced', 'kept']) hideMany(f, directory)
    fs.writeFileSync(`${f.upper}/u/kept/file`, 'text')
    for (const directory of ['new', 'other']) fs.mkdirSync(`${f.upper}/u/${directory}`)
    const server = await serve(t, f, ...given)
    const at = (name: string): string => `${f.merged}/${name}`
    const ways: Record<string, () => Promise<unknown>> = {
      removed: () => fs.promises.rmdir(at('removed')),
      replaced: () => fs.promises.rename(at('new'), at('replaced')),
    }
    for (const [directory, work] of Object.entries(ways)) {
      let over = false
      // The kernel itself blocks lookups of uncached names in the parent directory.
      fs.statSync(at('other'))
      const answered = await answeredDuring(
        at('other'),
        () => work().finally(() => (over = true)),
        () => true,
        () => over,
      )
      t.ok(answered >= SOME, `${directory}: ${answered}`)
    }
    await t.rejects(fs.promises.rmdir(at('kept')), { code: 'ENOTEMPTY' })
    t.strictSame(fs.readdirSync(f.merged).toSorted(), ['kept', 'other', 'replaced'])
    t.strictSame(fs.readdirSync(at('replaced')), [])
    t.strictSame(fs.readdirSync(at('kept')), ['file'])
    t.equal(fs.readdirSync(`${f.upper}/u/kept`).length, MANY + 1)
    const left = fs.readdirSync(`${f.upper}/w/work`, { withFileTypes: true })
    t.notOk(left.some(entry => entry.isDirectory()))
    await server.unmount()
    t.strictSame(fs.readdirSync(`${f.upper}/w/work`), [])
  })
}

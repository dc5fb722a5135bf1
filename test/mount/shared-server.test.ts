/**
 * Several unions of one server: each shows and keeps what a plain directory would after the same calls, whatever the others do
 * at the same time, and whatever happens to them.
 */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import * as fsp from 'node:fs/promises'
import t, { type Test } from 'tap'

import {
  isAlive,
  mountedOn,
  outcomeOf,
  PROGRAM,
  scratch,
  skipMounts,
  spawnPlain,
  test,
  until,
} from '../helpers/mount.js'
import { isNative } from '../helpers/transport.js'

const skip = skipMounts || (isNative() && 'a server with fuse-native has one union')

/** Numbers that are the same for the same seed. */
const randomFrom = (seed: number): ((below: number) => number) => {
  let state = seed >>> 0
  return below => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

const DIRECTORIES = ['.', 'a', 'a/b', 'c']
const NAMES = ['f', 'g', 'h', 'i', 'j']

const fill = (root: string, seed: number): void => {
  const random = randomFrom(seed)
  for (const directory of DIRECTORIES) {
    fs.mkdirSync(`${root}/${directory}`, { recursive: true })
    for (const name of NAMES) {
      if (random(3) > 0)
        fs.writeFileSync(`${root}/${directory}/${name}`, `${seed} ${name}\n`.repeat(random(3000)))
    }
  }
}

/** One call, the same for both roots; its result, or the name of its error. */
const call = (random: (below: number) => number): ((root: string) => Promise<string>) => {
  const pick = (): string => `${DIRECTORIES[random(4)]}/${NAMES[random(5)]}`
  const [path, other, number] = [pick(), pick(), random(4000)]
  const acts: ((root: string) => Promise<unknown>)[] = [
    root => fsp.writeFile(`${root}/${path}`, `${number}`.repeat(number)),
    root => fsp.appendFile(`${root}/${path}`, `more ${number}`),
    root => fsp.unlink(`${root}/${path}`),
    root => fsp.rename(`${root}/${path}`, `${root}/${other}`),
    root => fsp.link(`${root}/${path}`, `${root}/${other}`),
    root => fsp.symlink(other, `${root}/${path}`),
    root => fsp.truncate(`${root}/${path}`, number),
    root => fsp.chmod(`${root}/${path}`, 0o600 | (number & 0o77)),
    root => fsp.mkdir(`${root}/${path}`),
    root => fsp.rmdir(`${root}/${path}`),
    root => fsp.readFile(`${root}/${path}`, 'latin1'),
    async root => (await fsp.readdir(`${root}/${path}`)).toSorted(),
    async root => {
      const { mode, size } = await fsp.lstat(`${root}/${path}`)
      return fs.lstatSync(`${root}/${path}`).isDirectory() ? mode : [mode, size]
    },
    async root => {
      const file = await fsp.open(`${root}/${path}`, 'r+')
      try {
        await file.write('in the middle', number)
        await file.sync()
      } finally {
        await file.close()
      }
    },
  ]
  const act = acts[random(acts.length)]!
  return async root => {
    try {
      return JSON.stringify(await act(root)) ?? 'done'
    } catch (error) {
      return error instanceof Error && 'code' in error ? String(error.code) : String(error)
    }
  }
}

/** Everything in a tree, in order. */
const treeOf = (root: string, at = '.'): string[] =>
  fs
    .readdirSync(`${root}/${at}`, { withFileTypes: true })
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap(entry => {
      const path = `${at}/${entry.name}`
      const { mode } = fs.lstatSync(`${root}/${path}`)
      const start = `${path} ${mode.toString(8)}`
      if (entry.isDirectory()) return [start, ...treeOf(root, path)]
      if (entry.isSymbolicLink()) return [`${start} ${fs.readlinkSync(`${root}/${path}`)}`]
      return [`${start} ${fs.readFileSync(`${root}/${path}`, 'latin1')}`]
    })

interface Union {
  merged: string
  plain: string
  options: string
}

/** A place for a union, and a plain copy of what it shows at first. */
const place = (top: string, name: string, seed: number): Union => {
  const root = `${top}/${name}`
  for (const part of ['lower', 'upper', 'work', 'merged', 'plain'])
    fs.mkdirSync(`${root}/${part}`, { recursive: true })
  fill(`${root}/lower`, seed)
  fill(`${root}/plain`, seed)
  const options = `lowerdir=${root}/lower,upperdir=${root}/upper,workdir=${root}/work`
  return { merged: `${root}/merged`, plain: `${root}/plain`, options }
}

interface Host {
  top: string
  mount(union: Union, more?: string): Promise<void>
  pid(): number
}

/** Mounts that share a server of the test's own, which ends with the last of them. */
const host = (t: Test): Host => {
  const own = scratch(t, 'shared')
  const { top } = own
  const name = `tsoverlay-test-${process.pid}-${Math.floor(performance.now())}`
  const folder = `/run/${name}`
  const pids = new Set<number>()
  own.before(() => fs.rmSync(folder, { recursive: true, force: true }))
  own.before(() => until('the server has ended', () => ![...pids].some(isAlive)))
  const pid = (): number => {
    const [inner = ''] = fs.readdirSync(folder)
    const found = Number.parseInt(fs.readFileSync(`${folder}/${inner}/pid`, 'utf8'), 10)
    pids.add(found)
    return found
  }
  const mount = async (union: Union, more = ''): Promise<void> => {
    const args = ['mount', '--linger', '0', '-o', `${union.options}${more}`, union.merged]
    const env = { ...process.env, TSOVERLAY_SERVER: name }
    own.before(() => {
      if (mountedOn(union.merged).length > 0) spawnSync('umount', ['-l', union.merged])
    })
    const outcome = await outcomeOf(spawnPlain(PROGRAM, args, { env }))
    t.match(outcome, { status: 0, stderr: '' })
    await until(
      'the server is known',
      () => fs.existsSync(folder) && fs.readdirSync(folder).length > 0,
    )
    pid()
  }
  return { top, mount, pid }
}

const umount = (union: Union): number | null => spawnSync('umount', [union.merged]).status

/** Random calls on a union and beside it. Resolves to what was not the same. */
const work = async (union: Union, seed: number, calls: number): Promise<string[]> => {
  const random = randomFrom(seed)
  const different: string[] = []
  for (let i = 0; i < calls; i++) {
    const one = call(random)
    const [here, there] = [await one(union.merged), await one(union.plain)]
    if (here !== there) different.push(`${i}: ${here.slice(0, 80)} ${there.slice(0, 80)}`)
  }
  return different
}

test(t, 'work in all of them at once', { skip }, async t => {
  const h = host(t)
  const unions = Array.from({ length: 6 }, (_, i) => place(h.top, `u${i}`, i))
  await h.mount(unions[0]!)
  const pid = h.pid()
  for (const [i, union] of unions.entries())
    if (i > 0) await h.mount(union, i % 2 === 0 ? '' : ',io=cached')
  t.equal(h.pid(), pid, 'one server')
  const guest = place(h.top, 'guest', 99)
  const over = new AbortController()
  // Another one comes and goes meanwhile.
  const guests = async (): Promise<number> => {
    let n = 0
    for (; !over.signal.aborted; n++) {
      await h.mount(guest)
      t.equal(
        fs.readFileSync(`${guest.merged}/a/f`, 'latin1'),
        fs.readFileSync(`${guest.plain}/a/f`, 'latin1'),
      )
      t.equal(umount(guest), 0)
    }
    return n
  }
  const coming = guests()
  const different = await Promise.all(unions.map((union, i) => work(union, 1000 + i, 400)))
  over.abort()
  t.ok((await coming) > 0)
  t.same(
    different,
    unions.map(() => []),
  )
  for (const union of unions) t.same(treeOf(union.merged), treeOf(union.plain))
  // What the layers keep is the same.
  for (const union of unions.slice(0, 3)) {
    t.equal(umount(union), 0)
    await h.mount(union)
    t.same(treeOf(union.merged), treeOf(union.plain), 'mounted again')
  }
  for (const union of unions) t.equal(umount(union), 0)
})

test(t, 'the end of one is not that of another', { skip }, async t => {
  const h = host(t)
  const unions = Array.from({ length: 4 }, (_, i) => place(h.top, `u${i}`, i))
  const [busy, aborted, lazy, other] = unions as [Union, Union, Union, Union]
  for (const union of unions) await h.mount(union)
  fs.writeFileSync(`${busy.merged}/a/f`, 'before')
  fs.writeFileSync(`${lazy.merged}/a/f`, 'kept')
  const file = fs.openSync(`${lazy.merged}/a/f`, 'r')
  const working = work(other, 7, 300)

  // Its connection is aborted.
  const control = '/sys/fs/fuse/connections'
  if (fs.readdirSync(control).length === 0) spawnSync('mount', ['-t', 'fusectl', 'x', control])
  fs.writeFileSync(`${control}/${fs.statSync(aborted.merged).dev & 0xff_ffff}/abort`, '1')
  await until('it is taken out of the tree', () => mountedOn(aborted.merged).length === 0)
  t.equal(fs.readFileSync(`${busy.merged}/a/f`, 'utf8'), 'before')

  // It is taken out of the tree with a file open.
  t.equal(spawnSync('umount', ['-l', lazy.merged]).status, 0)
  t.equal(fs.readFileSync(file, 'utf8'), 'kept')
  fs.closeSync(file)

  // One that can't be mounted is an error for its caller alone.
  const args = ['mount', '-o', `lowerdir=${h.top}/none`, busy.plain]
  const outcome = await outcomeOf(spawnPlain(PROGRAM, args, { env: { ...process.env } }))
  t.equal(outcome.status, 32)
  t.match(outcome.stderr, 'lowerdir')

  t.same(await working, [])
  t.same(treeOf(other.merged), treeOf(other.plain))
  for (const union of [busy, other]) t.equal(umount(union), 0)
})

test(t, 'SIGTERM unmounts all', { skip }, async t => {
  const h = host(t)
  const unions = Array.from({ length: 3 }, (_, i) => place(h.top, `u${i}`, i))
  for (const union of unions) await h.mount(union)
  for (const union of unions) fs.writeFileSync(`${union.merged}/new`, 'text')
  const pid = h.pid()
  process.kill(pid, 'SIGTERM')
  await until('it has ended', () => !isAlive(pid))
  for (const union of unions) {
    t.same(mountedOn(union.merged), [])
    t.equal(fs.readFileSync(`${union.merged.replace(/merged$/, 'upper')}/new`, 'utf8'), 'text')
  }
})

/**
 * Several unions of one server. After the same calls each shows and stores the same as a plain
 * directory, regardless of simultaneous work in the other unions and of their ends.
 */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import * as fsp from 'node:fs/promises'
import { release } from 'node:os'
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
  waitUntil,
} from '../helpers/mount.js'
import { isNative } from '../helpers/transport.js'

const skip = skipMounts || (isNative() && 'a server with fuse-native has one union')

/** Pseudo-random numbers, the same for the same seed. */
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

/** A random call for both roots. Returns its result or the name of its error. */
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

/** Directories of a union, and a plain copy of its initial content. */
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

/**
 * Mounts of one server that belongs to the test and ends with the last mount.
 * @param limit the limit of open descriptors of a server
 * @param heap the heap limit of each of its threads, in MiB
 */
const host = (t: Test, { limit, heap }: { limit?: number; heap?: number } = {}): Host => {
  const own = scratch(t, 'shared')
  const { top } = own
  const name = `tsoverlay-test-${process.pid}-${Math.floor(performance.now())}`
  const directory = `/run/${name}`
  const pids = new Set<number>()
  own.before(() => fs.rmSync(directory, { recursive: true, force: true }))
  own.before(() => waitUntil('the server has ended', () => ![...pids].some(isAlive)))
  /** 0: no server has registered. */
  const registered = (): number => {
    try {
      const inner = fs.readdirSync(directory).find(entry => !entry.startsWith('.')) ?? ''
      return Number.parseInt(fs.readFileSync(`${directory}/${inner}/pid`, 'utf8'), 10)
    } catch {
      return 0
    }
  }
  const pid = (): number => {
    const found = registered()
    pids.add(found)
    return found
  }
  const mount = async (union: Union, more = ''): Promise<void> => {
    const args = ['mount', '--linger', '0', '-o', `${union.options}${more}`, union.merged]
    const env = { ...process.env, TSOVERLAY_SERVER: name }
    const through = limit === undefined ? [] : ['sh', '-c', `ulimit -n ${limit}; exec "$0" "$@"`]
    if (heap !== undefined) through.unshift('env', `NODE_OPTIONS=--max-old-space-size=${heap}`)
    own.before(() => {
      if (mountedOn(union.merged).length > 0) spawnSync('umount', ['-l', union.merged])
    })
    const [command = PROGRAM, ...before] = [...through, PROGRAM, ...args]
    const outcome = await outcomeOf(spawnPlain(command, before, { env }))
    t.match(outcome, { status: 0, stderr: '' })
    await waitUntil('the server is known', () => registered() > 0)
    pid()
  }
  return { top, mount, pid }
}

const umount = (union: Union): number | null => spawnSync('umount', [union.merged]).status

/** Makes random calls on a union and on its plain copy. Resolves to the differences. */
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

test(t, 'simultaneous work in all of them', { skip }, async t => {
  const h = host(t)
  const unions = Array.from({ length: 6 }, (_, i) => place(h.top, `u${i}`, i))
  await h.mount(unions[0]!)
  const pid = h.pid()
  for (const [i, union] of unions.entries())
    if (i > 0) await h.mount(union, i % 2 === 0 ? '' : ',io=cached')
  t.equal(h.pid(), pid, 'one server')
  const guest = place(h.top, 'guest', 99)
  const over = new AbortController()
  // Another union is mounted and unmounted repeatedly in the meantime.
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
  // The layers contain the same.
  for (const union of unions.slice(0, 3)) {
    t.equal(umount(union), 0)
    await h.mount(union)
    t.same(treeOf(union.merged), treeOf(union.plain), 'mounted again')
  }
  for (const union of unions) t.equal(umount(union), 0)
})

test(t, 'the end of one does not affect the others', { skip }, async t => {
  const h = host(t)
  const unions = Array.from({ length: 4 }, (_, i) => place(h.top, `u${i}`, i))
  const [busy, aborted, lazy, other] = unions as [Union, Union, Union, Union]
  for (const union of unions) await h.mount(union)
  fs.writeFileSync(`${busy.merged}/a/f`, 'before')
  fs.writeFileSync(`${lazy.merged}/a/f`, 'kept')
  const file = fs.openSync(`${lazy.merged}/a/f`, 'r')
  const working = work(other, 7, 300)

  // The connection of one mount is aborted.
  const control = '/sys/fs/fuse/connections'
  if (fs.readdirSync(control).length === 0) spawnSync('mount', ['-t', 'fusectl', 'x', control])
  fs.writeFileSync(`${control}/${fs.statSync(aborted.merged).dev & 0xff_ffff}/abort`, '1')
  await waitUntil('it is taken out of the tree', () => mountedOn(aborted.merged).length === 0)
  t.equal(fs.readFileSync(`${busy.merged}/a/f`, 'utf8'), 'before')

  // One mount is detached from the tree with an open file.
  t.equal(spawnSync('umount', ['-l', lazy.merged]).status, 0)
  t.equal(fs.readFileSync(file, 'utf8'), 'kept')
  fs.closeSync(file)

  // A failed mount is an error only for its client.
  const args = ['mount', '-o', `lowerdir=${h.top}/none`, busy.plain]
  const outcome = await outcomeOf(spawnPlain(PROGRAM, args, { env: { ...process.env } }))
  t.equal(outcome.status, 32)
  t.match(outcome.stderr, 'lowerdir')

  t.same(await working, [])
  t.same(treeOf(other.merged), treeOf(other.plain))
  for (const union of [busy, other]) t.equal(umount(union), 0)
})

test(t, 'SIGTERM unmounts all of them', { skip }, async t => {
  const h = host(t)
  const unions = Array.from({ length: 3 }, (_, i) => place(h.top, `u${i}`, i))
  for (const union of unions) await h.mount(union)
  for (const union of unions) fs.writeFileSync(`${union.merged}/new`, 'text')
  const pid = h.pid()
  process.kill(pid, 'SIGTERM')
  await waitUntil('it has ended', () => !isAlive(pid))
  for (const union of unions) {
    t.same(mountedOn(union.merged), [])
    t.equal(fs.readFileSync(`${union.merged.replace(/merged$/, 'upper')}/new`, 'utf8'), 'text')
  }
})

const descriptorsOf = (pid: number): number => fs.readdirSync(`/proc/${pid}/fd`).length

test(t, 'all of them share the descriptors of one process', { skip }, async t => {
  const LIMIT = 1024
  const MANY = 120
  const h = host(t, { limit: LIMIT })
  const lower = `${h.top}/many`
  for (let i = 0; i < MANY; i++) {
    fs.mkdirSync(`${lower}/d${i}/e`, { recursive: true })
    fs.writeFileSync(`${lower}/d${i}/e/f`, `text ${i}`)
  }
  const ways = ['', ',io=cached', ',noopen']
  const unions = Array.from({ length: 12 }, (_, i) => {
    const union = place(h.top, `u${i}`, i)
    return { ...union, options: union.options.replace('lowerdir=', `lowerdir=${lower}:`) }
  })
  for (const [i, union] of unions.entries()) await h.mount(union, ways[i % ways.length])
  const pid = h.pid()
  const open: number[] = []
  t.teardown(() => open.forEach(fd => fs.closeSync(fd)))
  for (const { merged } of unions) {
    const wrong: string[] = []
    for (let i = 0; i < MANY; i++) {
      const at = `${merged}/d${i}/e`
      if (fs.readdirSync(at).join() !== 'f') wrong.push(at)
      if (fs.readFileSync(`${at}/f`, 'utf8') !== `text ${i}`) wrong.push(`${at}/f`)
      if (i % 6 === 0) fs.appendFileSync(`${at}/f`, ' and more')
      if (i % 12 === 0) open.push(fs.openSync(`${at}/f`, 'r+'))
    }
    t.same(wrong, [])
  }
  t.ok(descriptorsOf(pid) < LIMIT, `${descriptorsOf(pid)}`)
  for (const { merged } of unions) {
    t.equal(fs.readFileSync(`${merged}/d6/e/f`, 'utf8'), 'text 6 and more')
    fs.writeFileSync(`${merged}/d7/e/new`, 'new')
  }
  // Beyond the limit only the union with the open files gets errors.
  const [first, , , last] = unions as [Union, Union, Union, Union]
  const refusal = (): string => {
    for (let i = 0; i < LIMIT; i++) {
      const path = `${first.merged}/d${i % MANY}/e/${i < MANY ? 'f' : `n${i}`}`
      try {
        open.push(fs.openSync(path, 'a+'))
      } catch (error) {
        return error instanceof Error && 'code' in error ? String(error.code) : String(error)
      }
    }
    return 'none'
  }
  t.equal(refusal(), 'EMFILE')
  for (const fd of open.splice(-20)) fs.closeSync(fd)
  await waitUntil('the files are closed', () => descriptorsOf(pid) < LIMIT - 8)
  for (let i = 0; i < MANY; i++)
    t.equal(fs.readdirSync(`${last.merged}/d${i}/e`).includes('f'), true)
  for (const fd of open.splice(0)) fs.closeSync(fd)
  for (const union of unions) t.equal(umount(union), 0)
})

test(t, 'a server with too few descriptors accepts no further mounts', { skip }, async t => {
  const h = host(t, { limit: 200 })
  const unions = Array.from({ length: 14 }, (_, i) => place(h.top, `u${i}`, i))
  const pids = new Set<number>()
  for (const union of unions) {
    await h.mount(union)
    pids.add(h.pid())
  }
  t.ok(pids.size > 1, 'another server')
  t.ok(pids.size < unions.length, 'the directory is shared, too')
  for (const union of unions) t.same(treeOf(union.merged), treeOf(union.plain))
  for (const union of unions) t.equal(umount(union), 0)
})

/**
 * Whether the kernel supports FUSE_NOTIFY_PRUNE, which asks it to forget nodes (since Linux 6.18).
 */
const FORGETS = ((): boolean => {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  return major > 6 || (major === 6 && minor >= 18)
})()

test(t, 'a union with too many nodes uses no memory of the others', { skip }, async t => {
  const [MANY, NAMES_EACH] = [70, 1000]
  const h = host(t, { heap: 32 })
  const [small, large] = [place(h.top, 'small', 1), place(h.top, 'large', 2)]
  const lower = `${h.top}/names`
  for (let i = 0; i < MANY; i++) {
    fs.mkdirSync(`${lower}/d${i}`, { recursive: true })
    for (let n = 0; n < NAMES_EACH; n++)
      fs.closeSync(fs.openSync(`${lower}/d${i}/${`${n}-`.padEnd(250, 'x')}`, 'w'))
  }
  await h.mount(small)
  const pid = h.pid()
  await h.mount({ ...large, options: large.options.replace('lowerdir=', `lowerdir=${lower}:`) })
  t.equal(h.pid(), pid, 'one server')
  const file = fs.openSync(`${large.merged}/a/new`, 'w+')
  fs.writeSync(file, 'kept')
  const errors = new Set<string>()
  const note = (error: unknown): void =>
    void errors.add(error instanceof Error && 'code' in error ? String(error.code) : String(error))
  for (let i = 0; i < MANY; i++) {
    const at = `${large.merged}/d${i}`
    const names = fs.readdirSync(at)
    t.equal(names.length, NAMES_EACH)
    for (const name of names) {
      try {
        fs.lstatSync(`${at}/${name}`)
      } catch (error) {
        note(error)
      }
    }
    fs.appendFileSync(`${small.merged}/c/log`, `${i}\n`)
  }
  t.same([...errors], FORGETS ? [] : ['ENOMEM'])
  t.equal(
    fs.readFileSync(`${small.merged}/c/log`, 'utf8'),
    Array.from({ length: MANY }, (_, i) => `${i}\n`).join(''),
  )
  t.equal(fs.readFileSync(`/proc/self/fd/${file}`, 'utf8'), 'kept')
  const { stdout } = spawnSync(PROGRAM, ['stats', '--json', large.merged], { encoding: 'utf8' })
  const nodes = Number(/"nodes": ?(\d+)/.exec(stdout)?.[1])
  t.ok(nodes > 0 && nodes < MANY * NAMES_EACH, `${nodes} nodes are left`)
  t.ok(isAlive(pid))
  fs.closeSync(file)
  for (const union of [small, large]) t.equal(umount(union), 0)
})

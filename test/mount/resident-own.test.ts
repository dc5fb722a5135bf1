/**
 * Unions that get a process of their own although a resident server runs: one of their files may
 * depend on a mount of that server, or lies on a file system that may not answer. Each mount is
 * also used; it would hang if the decision were wrong.
 */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import {
  isAlive,
  outcomeOf,
  scratch,
  serversOf,
  skipMounts,
  test,
  waitUntil,
  type Scratch,
} from '../helpers/mount.js'
import { layersIn, resident, servedBy, type Layers, type Resident } from '../helpers/resident.js'

const quiet = { status: 0, signal: null, stdout: '', stderr: '' }

interface Case {
  where: Scratch
  server: Resident
  /** The server's mount is on `first.merged`. */
  first: Layers
  second: Layers
}

const begin = async (t: Test): Promise<Case & { pid: number }> => {
  const where = scratch(t, 'resident')
  const server = resident(t, where)
  const [first, second] = ['first', 'second'].map(name => layersIn(where, name)) as [Layers, Layers]
  for (const name of ['low', 'up', 'wrk', 'mnt']) fs.mkdirSync(`${first.lower}/${name}`)
  fs.writeFileSync(`${first.lower}/low/file`, 'low')
  t.same(await server.run('mount', '-o', first.options, first.merged), quiet)
  return { where, server, first, second, pid: await server.registered() }
}

const run = (...command: string[]): void => {
  const { status, stderr } = spawnSync(command[0] ?? '', command.slice(1), { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command.join(' ')}: ${stderr}`)
}

/** Prepares a mount. Returns the arguments, the mountpoint, and a file to use. */
type Prepare = (c: Case) => { args: string[]; on?: string; cwd?: string; file?: string }

const mountOf = (options: string, on: string, ...args: string[]) => ({
  args: ['mount', ...args, '-o', options, on],
  on,
})

const cases: Record<string, Prepare> = {
  'a lower layer on a mount of the server': ({ first, second }) =>
    mountOf(`lowerdir=${first.merged}/low`, second.merged),
  'the whole union as a lower layer': ({ first, second }) =>
    mountOf(`lowerdir=${second.lower}:${first.merged}`, second.merged),
  'the upper layer on it': ({ first, second }) =>
    mountOf(
      `lowerdir=${second.lower},upperdir=${first.merged}/up,workdir=${first.merged}/wrk`,
      second.merged,
    ),
  'the mountpoint on it': ({ first, second, where }) => {
    where.before(() => void spawnSync('umount', ['-l', `${first.merged}/mnt`]))
    return mountOf(`lowerdir=${second.lower}`, `${first.merged}/mnt`)
  },
  'a path that leads through it': ({ first, second, where }) => {
    fs.symlinkSync(second.lower, `${first.merged}/link`)
    fs.symlinkSync('first/m/link', `${where.top}/alias`)
    return mountOf(`lowerdir=${where.top}/alias`, second.merged)
  },
  'a path that leads through it and back': ({ first, second }) =>
    mountOf(`lowerdir=${first.merged}/low/../../../second/l`, second.merged),
  'a log file on it': ({ first, second }) =>
    mountOf(`lowerdir=${second.lower},log_file=${first.merged}/log`, second.merged),
  'the working directory on it': ({ first, second }) => ({
    ...mountOf(`lowerdir=low`, second.merged),
    cwd: first.merged,
  }),
  'a bind mount of it': ({ first, second, where }) => {
    const bound = `${where.top}/bound`
    fs.mkdirSync(bound)
    where.before(() => void spawnSync('umount', ['-l', bound]))
    run('mount', '--bind', `${first.merged}/low`, bound)
    return mountOf(`lowerdir=${bound}`, second.merged)
  },
  "the kernel's overlay over it": ({ first, second, where }) => {
    const over = `${where.top}/over`
    fs.mkdirSync(over)
    where.before(() => void spawnSync('umount', ['-l', over]))
    run('mount', '-t', 'overlay', 'o', '-o', `lowerdir=${first.merged}/low:${second.lower}`, over)
    return mountOf(`lowerdir=${over}`, second.merged)
  },
  'a loop device over a file on it': ({ first, second, where }) => {
    const [image, disk] = [`${first.merged}/image`, `${where.top}/disk`]
    fs.mkdirSync(disk)
    run('truncate', '-s', '8M', image)
    run('mkfs.ext4', '-q', image)
    where.before(() => void spawnSync('umount', ['-l', disk]))
    run('mount', '-o', 'loop', image, disk)
    fs.mkdirSync(`${disk}/low`)
    fs.writeFileSync(`${disk}/low/file`, 'low')
    return mountOf(`lowerdir=${disk}/low`, second.merged)
  },
  'a link of /proc': ({ second }) =>
    mountOf(`lowerdir=/proc/self/root${second.lower}`, second.merged),
  '--own-server': ({ second }) =>
    mountOf(`lowerdir=${second.lower}`, second.merged, '--own-server'),
  own_server: ({ second }) => mountOf(`lowerdir=${second.lower},own_server`, second.merged),
}

test(t, 'a process of its own', { skip: skipMounts }, async t => {
  for (const [what, prepare] of Object.entries(cases)) {
    await test(t, what, async t => {
      const c = await begin(t)
      const { server, pid, first } = c
      const { args, on = '', cwd } = prepare(c)
      const child = server.start(args, cwd === undefined ? {} : { cwd })
      t.same(await outcomeOf(child), quiet)
      const [own = 0] = serversOf(on)
      t.not(own, 0, 'a server of this mount alone')
      t.strictSame(servedBy(on), [own])
      const names = fs.readdirSync(on)
      t.not(names.length, 0)
      for (const name of names) fs.statSync(`${on}/${name}`)
      if (args.some(arg => arg.includes('upperdir'))) {
        fs.appendFileSync(`${on}/which`, '!')
        t.equal(fs.readFileSync(`${first.upper}/up/which`, 'utf8'), 'second!')
      }
      t.strictSame(server.mounts(), [first.merged])
      t.equal(server.pid(), pid)
      t.same(await server.run('umount', on), quiet)
      await waitUntil('the end of its server', () => !isAlive(own))
    })
  }
})

test(
  t,
  'a union with a process of its own leaves no resident server',
  { skip: skipMounts },
  async t => {
    const where = scratch(t, 'resident')
    const server = resident(t, where)
    const f = layersIn(where, 'first')
    t.same(await server.run('mount', '--own-server', '-o', f.options, f.merged), quiet)
    const [own = 0] = serversOf(f.merged)
    t.equal(server.pid(), 0)
    t.same(await server.run('umount', f.merged), quiet)
    t.notOk(isAlive(own), 'it ends with its mount')
  },
)

test(t, 'a loop device over a local file', { skip: skipMounts }, async t => {
  const { where, server, pid, second } = await begin(t)
  const [image, disk] = [`${where.top}/image`, `${where.top}/disk`]
  fs.mkdirSync(disk)
  run('truncate', '-s', '8M', image)
  run('mkfs.ext4', '-q', image)
  where.before(() => void spawnSync('umount', ['-l', disk]))
  run('mount', '-o', 'loop', image, disk)
  t.same(await server.run('mount', '-o', `lowerdir=${disk}`, second.merged), quiet)
  t.strictSame(servedBy(second.merged), [pid], 'depends on nothing')
  t.same(await server.run('umount', second.merged), quiet)
})

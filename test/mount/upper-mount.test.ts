/**
 * The private mount of the upper layer: access times follow the union's mount flags, and mounts
 * below the layer are not visible. The results are compared with kernel overlayfs on the same file
 * system.
 */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import { directories, scratch, serve, skipMounts, test, tsoverlay } from '../helpers/mount.js'
import type { Directories } from '../helpers/mount.js'
import { skipParity } from '../helpers/parity.js'
import * as sys from '../helpers/syscalls.js'
import { isNative } from '../helpers/transport.js'

const { MAP, O, PROT } = sys
const skip = skipMounts || skipParity || (isNative() && 'not with fuse-native')
const MODES = ['io=passthrough', 'io=cached']

/** Kernel overlayfs, mounted by mount(8). */
const mountKernel = (f: Directories, options: string): void => {
  const given = ['-t', 'overlay', 'overlay', '-o', `${f.options}${options}`, f.merged]
  const { status, stderr } = spawnSync('mount', given, { encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
  f.before(() => void sys.umount(f.merged))
}

const atimeOf = (path: string): bigint => fs.lstatSync(path, { bigint: true }).atimeNs

const withFd = (path: string, flags: number, use: (fd: number) => void): void => {
  const fd = sys.open(path, flags)
  if (fd < 0) throw new Error(`${path}: errno ${-fd}`)
  use(fd)
  sys.close(fd)
}

/** Actions on an object of each layer that has the action's name; some are done twice. */
const ACTIONS: readonly [
  name: string,
  type: 'file' | 'directory' | 'link',
  act: (at: string) => void,
][] = [
  ['read', 'file', at => fs.readFileSync(at)],
  [
    'mapped',
    'file',
    at =>
      withFd(at, O.RDONLY, fd => {
        sys.withMapping(fd, 4096, PROT.READ, MAP.PRIVATE, 0, view => view[0])
      }),
  ],
  [
    'read with O_NOATIME',
    'file',
    at => withFd(at, O.RDONLY | O.NOATIME, fd => sys.read(fd, Buffer.alloc(100))),
  ],
  ['looked at', 'file', at => withFd(at, O.PATH, () => fs.statSync(at))],
  ['listed', 'directory', at => fs.readdirSync(at)],
  ['full, so not removed', 'directory', at => sys.unlinkat(sys.AT_FDCWD, at, sys.AT_REMOVEDIR)],
  ['walked through', 'directory', at => fs.readFileSync(`${at}/in it`)],
  ['followed', 'link', at => fs.readlinkSync(at)],
]

const fill = (layer: string): void => {
  for (const [name, type] of ACTIONS) {
    const path = `${layer}/${name}`
    if (type === 'file') fs.writeFileSync(path, 'text'.repeat(20_000))
    else if (type === 'link') fs.symlinkSync('nowhere', path)
    else {
      fs.mkdirSync(path)
      fs.writeFileSync(`${path}/in it`, '')
    }
    // Older than the last change, so that the first access counts for relatime, too.
    fs.lutimesSync(path, 1e9, 1e9 + 1)
  }
}

/** Longer than a tick of the kernel's coarse clock. */
const pause = (): Promise<void> => new Promise(done => setTimeout(done, 30))

/**
 * Runs the actions and records whether the access time changes, in the union and in the layer: `Y`
 * or `-` for each of three runs.
 */
const movesOf = async (f: Directories, layer: string): Promise<Record<string, string>> => {
  const moves: Record<string, string> = {}
  for (const [name, , act] of ACTIONS) {
    const paths = [`${f.merged}/${name}`, `${layer}/${name}`] as const
    const steps: string[] = []
    for (let i = 0; i < 3; i++) {
      const before = paths.map(atimeOf)
      await pause()
      act(paths[0])
      steps.push(paths.map((path, at) => (atimeOf(path) === before[at] ? '-' : 'Y')).join(''))
    }
    moves[name] = steps.join(' ')
  }
  return moves
}

/** A union with all objects in its upper layer, or in its lower layer. */
const prepare = (t: Test, which: 'upper' | 'lower'): Directories => {
  const f = directories(t)
  fill(f[which])
  return f
}

for (const words of [
  '',
  'relatime',
  'noatime',
  'nodiratime',
  'strictatime',
  'strictatime,nodiratime',
  'ro',
]) {
  const options = words === '' ? '' : `,${words}`
  test(t, `access times: ${words || 'no flag'}`, { skip }, async t => {
    for (const which of ['upper', 'lower'] as const) {
      const kernel = prepare(t, which)
      mountKernel(kernel, options)
      const expected = await movesOf(kernel, kernel[which])
      const moved = Object.values(expected).some(steps => steps.includes('Y'))
      t.equal(moved, which === 'upper' && !/noatime|ro/.test(words), `${which}, of the kernel`)
      for (const mode of MODES) {
        const own = prepare(t, which)
        if (mode === 'io=cached' && words.includes('strictatime')) {
          const outcome = await tsoverlay(
            'mount',
            '-o',
            `${own.options},${mode}${options}`,
            own.merged,
          )
          t.match(outcome, { status: 1, stderr: /^tsoverlay: strictatime.*\n$/ })
          continue
        }
        await serve(t, own, '-o', `${mode}${options}`)
        t.same(await movesOf(own, own[which]), expected, `${which}, ${mode}`)
      }
    }
  })
}

test(t, 'the flags of the mount of the upper layer have no effect', { skip }, async t => {
  for (const mode of [undefined, ...MODES]) {
    const f = onTmpfs(t, sys.MS.NOATIME)
    fill(f.upper)
    if (mode === undefined) mountKernel(f, ',relatime')
    else await serve(t, f, '-o', `${mode},relatime`)
    t.match(await movesOf(f, f.upper), { read: 'YY -- --', listed: 'YY -- --' }, mode ?? 'kernel')
  }
})

test(t, 'remount does not change them', { skip }, async t => {
  const f = directories(t)
  await serve(t, f, '-o', 'noatime')
  const remount = (words: string) => tsoverlay('mount', '-o', `remount,${words}`, f.merged)
  t.match(await remount('relatime'), { status: 32, stderr: /access times.*mount it anew\n$/ })
  t.match(await remount('nosuid'), { status: 0, stderr: '' })
  t.match(await remount('noatime,nodev'), { status: 0, stderr: '' })
})

/** Directories on a file system of their own with shared mount propagation. */
const onTmpfs = (t: Test, flags: number): Directories => {
  const own = scratch(t)
  const { top } = own
  sys.mount('none', top, 'tmpfs', flags, '')
  sys.mount('none', top, null, sys.MS.SHARED, '')
  own.before(() => void sys.umount(top, sys.MNT.DETACH))
  const [lower, upper, work, merged] = ['lower', 'upper', 'work', 'merged'].map(part => {
    fs.mkdirSync(`${top}/${part}`)
    return `${top}/${part}`
  }) as [string, string, string, string]
  const options = `lowerdir=${lower},upperdir=${upper},workdir=${work}`
  return { ...own, lower, upper, work, merged, options }
}

/**
 * The content of mounts below the upper layer, as the union shows it. They are made before and
 * after the union is mounted.
 */
const mountBelow = async (t: Test, f: Directories, mount: () => Promise<void> | void) => {
  const secret = `${f.top}/secret`
  fs.mkdirSync(secret)
  fs.writeFileSync(`${secret}/f`, 'secret')
  for (const name of ['before', 'after']) {
    fs.mkdirSync(`${f.upper}/${name}`)
    fs.writeFileSync(`${f.upper}/${name}/f`, 'own')
  }
  const cover = (name: string): void => {
    sys.mount(secret, `${f.upper}/${name}`, null, sys.MS.BIND, '')
    f.before(() => void sys.umount(`${f.upper}/${name}`))
  }
  cover('before')
  await mount()
  cover('after')
  const seen = ['before', 'after'].map(name => {
    const at = `${f.merged}/${name}`
    const text = fs.readFileSync(`${at}/f`, 'utf8')
    fs.writeFileSync(`${at}/new`, '')
    fs.renameSync(`${at}/new`, `${f.merged}/moved from ${name}`)
    fs.writeFileSync(`${at}/f`, 'changed')
    const stays = sys.unlinkat(sys.AT_FDCWD, at, sys.AT_REMOVEDIR)
    return [text, fs.readdirSync(at), stays]
  })
  t.same(fs.readdirSync(secret), ['f'])
  t.equal(fs.readFileSync(`${secret}/f`, 'utf8'), 'secret')
  return seen
}

test(t, 'mounts below the upper layer are not crossed', { skip }, async t => {
  const kernel = onTmpfs(t, 0)
  const expected = await mountBelow(t, kernel, () => mountKernel(kernel, ''))
  t.match(expected, [
    ['own', ['f']],
    ['own', ['f']],
  ])
  for (const mode of MODES) {
    const own = onTmpfs(t, 0)
    const seen = await mountBelow(t, own, async () => void (await serve(t, own, '-o', mode)))
    t.same(seen, expected, mode)
  }
  const only = onTmpfs(t, 0)
  const secret = `${only.top}/secret`
  fs.mkdirSync(`${only.upper}/d`)
  fs.mkdirSync(secret)
  fs.writeFileSync(`${secret}/f`, '')
  sys.mount(secret, `${only.upper}/d`, null, sys.MS.BIND, '')
  only.before(() => void sys.umount(`${only.upper}/d`))
  await serve(t, only, '-o', 'ro')
  t.same(fs.readdirSync(`${only.merged}/d`), [], 'of a union that only reads')
})

test(
  t,
  'the file system of the layers can be unmounted while the union is mounted',
  { skip },
  async t => {
    for (const mode of [undefined, ...MODES]) {
      const base = onTmpfs(t, 0)
      const { top } = scratch(t)
      const f = { ...base, top, merged: `${top}/merged` }
      fs.mkdirSync(f.merged)
      if (mode === undefined) mountKernel(f, '')
      else await serve(t, f, '-o', mode)
      t.equal(sys.umount(base.top), 0, mode ?? 'kernel')
      fs.writeFileSync(`${f.merged}/f`, 'text')
      fs.renameSync(`${f.merged}/f`, `${f.merged}/g`)
      t.equal(fs.readFileSync(`${f.merged}/g`, 'utf8'), 'text')
    }
  },
)

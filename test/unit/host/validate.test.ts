import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'

import t, { type Test } from 'tap'

import { MountError } from '../../../src/errors.js'
import { defaultUnionOptions } from '../../../src/config/defaults.js'
import type { UnionOptions } from '../../../src/overlay/options.js'
import { validateMountpoint, validateUnion } from '../../../src/host/validate.js'
import { bundle } from '../../helpers/bundle.js'

const isRoot = process.geteuid?.() === 0

/** Directories `l`, `l2`, `u`, `w`, `m` in the test's directory. */
const directories = (t: Test): string => {
  const top = fs.realpathSync(fs.mkdtempSync(`${tmpdir()}/tsoverlay-validate-`))
  t.teardown(() => fs.rmSync(top, { recursive: true, force: true }))
  for (const name of ['l', 'l2', 'u', 'w', 'm']) fs.mkdirSync(`${top}/${name}`)
  return top
}

const union = (top: string, change: Partial<UnionOptions> = {}): UnionOptions => ({
  ...defaultUnionOptions,
  lower: [`${top}/l`, `${top}/l2`],
  upper: `${top}/u`,
  work: `${top}/w`,
  ...change,
})

interface Expected {
  option: string
  path?: string
  code: string
  says?: RegExp
}

const refused = (t: Test, name: string, check: () => void, expected: Expected): void => {
  try {
    check()
    t.fail(`${name}: accepted`)
  } catch (error) {
    if (!(error instanceof MountError)) throw error
    t.equal(error.option, expected.option, `${name}: option`)
    t.equal(error.code, expected.code, `${name}: code`)
    if (expected.path !== undefined) t.equal(error.path, expected.path, `${name}: path`)
    t.match(error.message, expected.says ?? /./, `${name}: message`)
    t.match(error.message, new RegExp(`^${expected.option}[= ]`), `${name}: begins with the option`)
    t.notMatch(error.message, /\n/, `${name}: one line`)
    t.match(error.message, /; /, `${name}: a way out`)
  }
}

t.test('a good union passes', async t => {
  const top = directories(t)
  validateUnion(union(top))
  validateUnion({ ...defaultUnionOptions, lower: [`${top}/l`] })
  validateMountpoint(`${top}/m`, union(top))
  t.same(fs.readdirSync(`${top}/w`), [], 'and nothing is created')
})

t.test('each option: missing, a file, behind a file, a loop', async t => {
  const top = directories(t)
  fs.writeFileSync(`${top}/file`, '')
  fs.symlinkSync('loop', `${top}/loop`)
  const options: Record<string, (path: string) => void> = {
    lowerdir: path => validateUnion(union(top, { lower: [`${top}/l`, path] })),
    upperdir: path => validateUnion(union(top, { upper: path })),
    workdir: path => validateUnion(union(top, { work: path })),
    mountpoint: path => validateMountpoint(path, union(top)),
  }
  const paths: [string, string, RegExp][] = [
    [`${top}/none`, 'ENOENT', /no such directory; create it/],
    [`${top}/file`, 'ENOTDIR', /not a directory/],
    [`${top}/file/x`, 'ENOTDIR', /not a directory/],
    [`${top}/loop`, 'ELOOP', /too many symlinks/],
    [`${top}/${'n'.repeat(300)}`, 'ENAMETOOLONG', /too long/],
  ]
  for (const [option, check] of Object.entries(options)) {
    for (const [path, code, says] of paths) {
      refused(t, `${option} ${code}`, () => check(path), { option, path, code, says })
    }
  }
})

t.test('options that are missing', async t => {
  const top = directories(t)
  refused(t, 'no lower', () => validateUnion(union(top, { lower: [] })), {
    option: 'lowerdir',
    code: 'EINVAL',
    says: /at least one lower layer/,
  })
  const { work: _, ...withoutWork } = union(top)
  refused(t, 'no work', () => validateUnion(withoutWork), {
    option: 'workdir',
    code: 'EINVAL',
    says: /upperdir=.*needs one/,
  })
})

t.test('nested or repeated directories', async t => {
  const top = directories(t)
  fs.mkdirSync(`${top}/l/in/deep`, { recursive: true })
  fs.mkdirSync(`${top}/u/in`)
  fs.mkdirSync(`${top}/w/work/in`, { recursive: true })
  fs.mkdirSync(`${top}/w/beside`)
  fs.symlinkSync('l', `${top}/again`)
  const cases: [string, Partial<UnionOptions>, Expected][] = [
    [
      'a lower twice',
      { lower: [`${top}/l`, `${top}/l2`, `${top}/l`] },
      { option: 'lowerdir', code: 'ELOOP', says: /is the same directory as lowerdir=/ },
    ],
    [
      'a lower twice through a symlink',
      { lower: [`${top}/l`, `${top}/again`] },
      { option: 'lowerdir', path: `${top}/again`, code: 'ELOOP', says: /is the same directory/ },
    ],
    [
      'a lower inside a lower',
      { lower: [`${top}/l`, `${top}/l/in/deep`] },
      { option: 'lowerdir', path: `${top}/l/in/deep`, code: 'ELOOP', says: /lies inside lowerdir/ },
    ],
    [
      'the other order',
      { lower: [`${top}/again/in`, `${top}/l`] },
      { option: 'lowerdir', path: `${top}/again/in`, code: 'ELOOP', says: /lies inside lowerdir/ },
    ],
    [
      'lower is upper',
      { lower: [`${top}/u`] },
      { option: 'lowerdir', code: 'ELOOP', says: /is the same directory as upperdir=/ },
    ],
    [
      'lower inside upper',
      { lower: [`${top}/u/in`] },
      { option: 'lowerdir', code: 'ELOOP', says: /lies inside upperdir/ },
    ],
    [
      'upper inside lower',
      { upper: `${top}/l/in` },
      { option: 'upperdir', code: 'ELOOP', says: /lies inside lowerdir/ },
    ],
    [
      'lower contains all',
      { lower: [top] },
      { option: 'upperdir', code: 'ELOOP', says: /lies inside lowerdir/ },
    ],
    [
      'work inside lower',
      { work: `${top}/l/in` },
      { option: 'workdir', code: 'ELOOP', says: /lies inside lowerdir/ },
    ],
    [
      'work is lower',
      { lower: [`${top}/w`] },
      { option: 'workdir', code: 'ELOOP', says: /is the same directory as lowerdir/ },
    ],
    [
      "lower inside work's own part",
      { lower: [`${top}/w/work/in`] },
      { option: 'lowerdir', code: 'ELOOP', says: /lies inside workdir/ },
    ],
    [
      "lower is work's own part",
      { lower: [`${top}/w/work`] },
      { option: 'lowerdir', code: 'ELOOP', says: /is a part of workdir/ },
    ],
    [
      'work is upper',
      { work: `${top}/u` },
      { option: 'workdir', code: 'EINVAL', says: /is the same directory as upperdir/ },
    ],
    [
      'work inside upper',
      { work: `${top}/u/in` },
      { option: 'workdir', code: 'EINVAL', says: /lies inside upperdir/ },
    ],
    [
      'upper inside work',
      { upper: `${top}/w/work` },
      { option: 'upperdir', code: 'EINVAL', says: /lies inside workdir/ },
    ],
  ]
  for (const [name, change, expected] of cases) {
    refused(t, name, () => validateUnion(union(top, change)), expected)
  }
  validateUnion(union(top, { lower: [`${top}/w/beside`] }))
  t.pass('a lower beside `work` and `index` is fine, as in the kernel')
})

t.test('names with a common prefix do not overlap', async t => {
  const top = directories(t)
  fs.mkdirSync(`${top}/l.more`)
  validateUnion(union(top, { lower: [`${top}/l`, `${top}/l.more`] }))
})

t.test('allowed mountpoints', async t => {
  const top = directories(t)
  for (const name of ['l/in', 'u/in', 'w/in', 'm/layer']) fs.mkdirSync(`${top}/${name}`)
  fs.symlinkSync(`${top}/l/in`, `${top}/alias`)
  for (const [path, option] of [
    [`${top}/l/in`, 'lowerdir'],
    [`${top}/alias`, 'lowerdir'],
    [`${top}/u/in`, 'upperdir'],
    [`${top}/w/in`, 'workdir'],
  ] as const) {
    refused(t, path, () => validateMountpoint(path, union(top)), {
      option: 'mountpoint',
      path,
      code: 'ELOOP',
      says: new RegExp(`lies inside ${option}=`),
    })
  }
  validateMountpoint(`${top}/l`, union(top))
  validateMountpoint(`${top}/u`, union(top))
  validateMountpoint(`${top}/m`, union(top, { lower: [`${top}/m/layer`] }))
  t.pass('on a layer itself and above one is fine: layers are opened before')
})

t.test('incompat features in the workdir', async t => {
  const top = directories(t)
  fs.mkdirSync(`${top}/w/work/incompat/volatile/dirty`, { recursive: true })
  refused(t, 'volatile', () => validateUnion(union(top)), {
    option: 'workdir',
    path: `${top}/w/work/incompat/volatile`,
    code: 'EINVAL',
    says: /overlay with incompat feature 'volatile' cannot be mounted; its last mount never synced, .*remove .*\/incompat\/volatile/,
  })
  fs.rmSync(`${top}/w/work/incompat/volatile`, { recursive: true })
  validateUnion(union(top))
  fs.writeFileSync(`${top}/w/work/incompat/newer`, '')
  refused(t, 'unknown', () => validateUnion(union(top)), {
    option: 'workdir',
    path: `${top}/w/work/incompat/newer`,
    code: 'EINVAL',
    says: /overlay with incompat feature 'newer' cannot be mounted/,
  })
})

const skipMounts = !isRoot && 'needs root'

interface Verdict {
  message?: string
  option?: string
  code?: string
  path?: string
}

/** Mounts in a separate mount namespace and validates there, as root or as an ordinary user. */
const inNamespace = async (
  t: Test,
  commands: string,
  top: string,
  change: Partial<UnionOptions>,
  uid = 0,
): Promise<Verdict> => {
  const script = `
    import { validateUnion } from ${JSON.stringify(bundle(t, 'host/validate'))}
    if (${uid} !== 0) { process.setgroups([]); process.setgid(${uid}); process.setuid(${uid}) }
    try { validateUnion(${JSON.stringify(union(top, change))}); console.log('{}') }
    catch (error) {
      const { message, option, code, path } = error
      console.log(JSON.stringify({ message, option, code, path }))
    }`
  const shell = `unset NODE_OPTIONS; ${commands}; exec "$0" --input-type=module -e "$1"`
  const child = spawn(
    'unshare',
    ['--mount', '--propagation=private', 'sh', '-ec', shell, process.execPath, script],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  await once(child, 'close')
  return JSON.parse(output) as Verdict
}

t.test('as an ordinary user', { skip: skipMounts }, async t => {
  const top = directories(t)
  const nobody = 65534
  for (const path of [top, `${top}/l`, `${top}/l2`]) fs.chmodSync(path, 0o755)
  for (const path of [`${top}/u`, `${top}/w`]) fs.chownSync(path, nobody, nobody)
  t.same(await inNamespace(t, ':', top, {}, nobody), {}, 'all is well')
  const cases: [string, string, Partial<UnionOptions>, string][] = [
    ['lowerdir', `${top}/l`, {}, `chmod 700 ${top}/l`],
    ['upperdir', `${top}/u`, {}, `chmod 755 ${top}/l; chown 0 ${top}/u`],
    ['workdir', `${top}/w`, {}, `chown 65534 ${top}/u; chown 0 ${top}/w`],
  ]
  for (const [option, path, change, commands] of cases) {
    t.match(await inNamespace(t, commands, top, change, nobody), {
      option,
      path,
      code: 'EACCES',
      message: /permission denied; it must be readable .*for the mounting user; change its mode/,
    })
  }
})

t.test('filesystems', { skip: skipMounts }, async t => {
  t.test('work on another one', async t => {
    const top = directories(t)
    t.match(await inNamespace(t, `mount -t tmpfs none ${top}/w`, top, {}), {
      option: 'workdir',
      code: 'EXDEV',
      message: /different file systems or mounts/,
    })
  })
  t.test('the same one, mounted twice', async t => {
    const top = directories(t)
    t.match(await inNamespace(t, `mount --bind ${top}/w ${top}/w`, top, {}), {
      option: 'workdir',
      code: 'EXDEV',
    })
  })
  t.test('upper on a read-only one', async t => {
    const top = directories(t)
    const commands = `mount -t tmpfs none ${top}/m; mkdir ${top}/m/u ${top}/m/w; mount -o remount,ro ${top}/m`
    const change = { upper: `${top}/m/u`, work: `${top}/m/w` }
    t.match(await inNamespace(t, commands, top, change), {
      option: 'upperdir',
      code: 'EROFS',
      path: `${top}/m/u`,
      message: /lies on a read-only file system; /,
    })
  })
  t.test('a bind mount of the inside of a layer', async t => {
    const top = directories(t)
    fs.mkdirSync(`${top}/l/in`)
    const commands = `mount --bind ${top}/l/in ${top}/m`
    t.match(await inNamespace(t, commands, top, { lower: [`${top}/l`, `${top}/m`] }), {
      option: 'lowerdir',
      code: 'ELOOP',
      path: `${top}/m`,
      message: /lies inside lowerdir=/,
    })
  })
  t.test('a bind mount of a layer', async t => {
    const top = directories(t)
    t.match(
      await inNamespace(t, `mount --bind ${top}/l ${top}/m`, top, {
        lower: [`${top}/l`, `${top}/m`],
      }),
      { option: 'lowerdir', code: 'ELOOP', message: /is the same directory/ },
    )
  })
  t.test('in use by kernel overlayfs', async t => {
    const top = directories(t)
    // On a tmpfs, because not every filesystem can have an upper layer.
    const x = `${top}/m`
    const commands = `mount -t tmpfs none ${x}; mkdir ${x}/l ${x}/u ${x}/w ${x}/m; mount -t overlay none -o lowerdir=${x}/l,upperdir=${x}/u,workdir=${x}/w ${x}/m`
    t.match(
      await inNamespace(t, commands, top, { lower: [`${x}/l`], upper: `${x}/u`, work: `${x}/w` }),
      {
        option: 'upperdir',
        code: 'EBUSY',
        message: new RegExp(`in use by the kernel's overlay mount on ${x}/m; unmount that first`),
      },
    )
  })
  t.test('inside a directory in use by kernel overlayfs', async t => {
    const top = directories(t)
    const x = `${top}/m`
    const start = `mount -t tmpfs none ${x}; cd ${x}; mkdir -p l u/sub/u u/sub/w w m b; mount -t overlay none -o lowerdir=l,upperdir=`
    const absolute = `${start}${x}/u,workdir=${x}/w m`
    const lies = (path: string) => ({
      option: 'upperdir',
      code: 'EBUSY',
      message: new RegExp(
        `^upperdir=${path} lies in ${x}/u, which is in use by the kernel's overlay mount on ${x}/m;`,
      ),
    })
    const within = (directory: string) => ({
      lower: [`${x}/l`],
      upper: `${directory}/u`,
      work: `${directory}/w`,
    })
    const sub = `${x}/u/sub`
    t.match(await inNamespace(t, absolute, top, within(sub)), lies(`${sub}/u`))
    t.match(await inNamespace(t, `${start}u,workdir=w m`, top, within(sub)), lies(`${sub}/u`))
    const bind = `${absolute}; mount --bind u/sub b`
    t.match(await inNamespace(t, bind, top, within(`${x}/b`)), lies(`${x}/b/u`))
    const other = `${absolute}; mount -t tmpfs none u/sub; mkdir u/sub/u u/sub/w`
    t.same(await inNamespace(t, other, top, within(sub)), {}, 'another file system')
  })
})

t.test('hundreds of layers', async t => {
  const top = directories(t)
  const lower = Array.from({ length: 600 }, (_, i) => `${top}/m/${i}`)
  for (const path of lower) fs.mkdirSync(path)
  validateUnion(union(top, { lower }))
  refused(
    t,
    'the last is the first',
    () => validateUnion(union(top, { lower: [...lower, `${top}/m/0`] })),
    {
      option: 'lowerdir',
      code: 'ELOOP',
    },
  )
})

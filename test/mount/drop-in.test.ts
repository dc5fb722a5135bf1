/**
 * The program in place of fuse-overlayfs, and under mount(8): the command line without a command,
 * and the effect of each option of fuse-overlayfs, on real mounts. docs/CONTAINERS.md lists these
 * options.
 */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'

import t, { type Test } from 'tap'

import {
  CLI,
  counters,
  directories,
  mountedOn,
  mountTable,
  NODE,
  outcomeOf,
  PROGRAM,
  scratch,
  serve,
  serversOf,
  skipMounts,
  spawnNode,
  spawnPlain,
  test,
  tsoverlay,
  waitUntil,
  type Directories,
  type Outcome,
  type Served,
} from '../helpers/mount.js'
import { getxattr, listxattr, mount, removexattr, setxattr } from '../helpers/syscalls.js'

const EOPNOTSUPP = 95
const ENODATA = 61

/** A directory with the program under both of its names, as npm creates it. */
const programs = (top: string): string => {
  const bin = `${top}/bin`
  if (fs.existsSync(bin)) return bin
  fs.mkdirSync(bin)
  fs.chmodSync(top, 0o755)
  for (const name of ['tsoverlay', 'fuse-overlayfs']) fs.symlinkSync(PROGRAM, `${bin}/${name}`)
  return bin
}

/** At the end of the test unmounts the mount and waits for its server. */
const unmountAtEnd = (t: Test, f: Directories): void =>
  f.before(async () => {
    if (mountedOn(f.merged).length === 0) return
    const { status, stderr } = await tsoverlay('umount', f.merged)
    if (status !== 0) t.fail(`at the end: ${stderr}`)
    else t.same(serversOf(f.merged), [], 'no server is left')
  })

/** The part of a mountinfo line after ` - `, and the mount's flags. */
const shown = (path: string): { type: string; source: string; options: string; flags: string } => {
  const line = mountTable(path).find(one => one.split(' ')[2] === path) ?? ''
  const [type = '', source = '', options = ''] = line.split(' - ')[1]?.split(' ') ?? []
  return { type, source, options, flags: line.split(' ')[3] ?? '' }
}

const SILENT: Outcome = { status: 0, signal: null, stdout: '', stderr: '' }

/** Mounts with a command line, checks the mount, and unmounts. */
const live = async (
  t: Test,
  f: Directories,
  child: ChildProcess,
  says: string | RegExp = '',
): Promise<ReturnType<typeof shown>> => {
  t.match(await outcomeOf(child), { ...SILENT, stderr: says })
  t.same(mountedOn(f.merged), ['fuse.tsoverlay'], 'live when the program returns')
  const how = shown(f.merged)
  t.equal(fs.readFileSync(`${f.merged}/from-lower`, 'utf8'), 'lower')
  fs.writeFileSync(`${f.merged}/new`, 'new')
  t.equal(fs.readFileSync(`${f.upper}/new`, 'utf8'), 'new')
  t.match(await tsoverlay('umount', f.merged), SILENT)
  return how
}

const withFile = (t: Test): Directories => {
  const f = directories(t, 'drop-in')
  fs.writeFileSync(`${f.lower}/from-lower`, 'lower')
  unmountAtEnd(t, f)
  return f
}

/** The negotiated INIT flags, from a server that logs at level debug. */
const negotiated = async (server: Served): Promise<string[]> => {
  const line = () => /^.*"negotiated".*\n/m.exec(server.log())?.[0]
  await waitUntil('the negotiation', () => line() !== undefined)
  return (JSON.parse(line() ?? '') as { flags: string[] }).flags
}

const debug = ['--log-level', 'debug'] as const
const NOBODY = 65534
/** Reads a file as another user. Returns its text, or the error message of cat(1). */
const readAs = (uid: number, path: string): string => {
  const { status, stdout, stderr } = spawnSync('cat', [path], { uid, gid: uid, encoding: 'utf8' })
  return status === 0 ? stdout : stderr
}

test(t, 'the command line of fuse-overlayfs', { skip: skipMounts }, async t => {
  const f = withFile(t)
  const bin = programs(f.top)
  const run = (name: string, ...args: string[]) => spawnPlain(`${bin}/${name}`, args)
  const finished = (name: string, ...args: string[]) => outcomeOf(run(name, ...args))

  for (const name of ['tsoverlay', 'fuse-overlayfs']) {
    await test(t, name, async t => {
      const { options, merged } = f
      t.match(await live(t, f, run(name, '-o', options, merged)), {
        source: 'tsoverlay',
        options: /allow_other/,
        flags: /^rw,relatime$/,
      })
      await live(t, f, run(name, merged, `-o${options}`))
      await live(t, f, run(name, '-o', options.replaceAll(',', ',,'), '-o', ',', '--', merged))
      const says = /^unknown argument ignored: -x\nunknown argument ignored: metacopy=on\n$/
      await live(t, f, run(name, '-x', '-o', `metacopy=on,${options}`, merged), says)
    })
  }

  await test(t, 'in the foreground', async t => {
    for (const flag of ['-f', '-d', '--debug']) {
      const child = run('fuse-overlayfs', flag, '-o', f.options, f.merged)
      const ended = outcomeOf(child)
      let said = ''
      child.stderr?.on('data', (text: string) => (said += text))
      await waitUntil('the mount', () => mountedOn(f.merged).length > 0)
      fs.readdirSync(f.merged)
      child.kill('SIGUSR1')
      await waitUntil('counters on standard error', () => said.includes('"counters"'))
      t.equal(spawnSync('umount', [f.merged]).status, 0)
      t.match(await ended, { status: 0, signal: null })
      t.equal(said.includes('rx '), flag !== '-f', `${flag}: requests are logged, or not`)
    }
  })

  await test(t, 'help, version and wrong usage', async t => {
    t.match(await finished('fuse-overlayfs', '--version'), {
      ...SILENT,
      stdout: /^fuse-overlayfs: version 1\.16 \(tsoverlay \d+\.\d+\.\d+\)\n$/,
    })
    t.match(await finished('fuse-overlayfs', '-h'), { ...SILENT, stdout: /lowerdir=A:B:C/ })
    t.match(await finished('tsoverlay', '-V'), { ...SILENT, stdout: /^tsoverlay \d+\.\d+\.\d+\n$/ })
    for (const args of [[], ['-o', f.options], [f.merged], ['/a', '/b', f.merged], ['-o']]) {
      const { status, stdout, stderr } = await finished('fuse-overlayfs', ...args)
      t.equal(status, 1, args.join(' '))
      t.equal(stdout, '')
      t.match(stderr, /^tsoverlay: /)
    }
    t.match(await finished('fuse-overlayfs', '-o', 'lowerdir=/nope', f.merged), {
      status: 32,
      stderr: /^tsoverlay: lowerdir=\/nope: no such directory/,
    })
    t.same(mountedOn(f.merged), [])
  })
})

test(t, 'unknown options in each kind of invocation', { skip: skipMounts }, async t => {
  const f = withFile(t)
  const bin = programs(f.top)
  fs.symlinkSync(PROGRAM, `${bin}/mount.tsoverlay`)
  const ways = {
    command: (more: string) => ['tsoverlay', 'mount', '-o', `${f.options},${more}`, f.merged],
    sloppy: (more: string) => ['tsoverlay', 'mount', '-s', '-o', `${f.options},${more}`, f.merged],
    alias: (more: string) => ['fuse-overlayfs', '-o', `${f.options},${more}`, f.merged],
    bare: (more: string) => ['tsoverlay', 'none', f.merged, '-o', `${f.options},${more}`],
    helper: (more: string) => ['mount.tsoverlay', 'none', f.merged, '-o', `${f.options},${more}`],
    sloppyHelper: (more: string) => [
      'mount.tsoverlay',
      'none',
      f.merged,
      '-s',
      '-o',
      `${f.options},${more}`,
    ],
  }
  const misspelt = 'uperdir=/u'
  for (const [way, item, line] of [
    ['command', misspelt, /^tsoverlay: uperdir=\/u: no such option; did you mean upperdir\?\n$/],
    ['command', 'metacopy=on', /^tsoverlay: metacopy=on: this option is not offered: .*\n$/],
    ['command', 'zzzzzz', /^tsoverlay: zzzzzz: no such option\n$/],
    ['alias', misspelt, /did you mean upperdir/],
    ['bare', 'workdri=/w', /did you mean workdir/],
    ['helper', 'lower_dir=/a', /did you mean lowerdir/],
  ] as const) {
    const [name = '', ...args] = ways[way](item)
    t.match(await outcomeOf(spawnPlain(`${bin}/${name}`, args)), { status: 1, stderr: line })
    t.same(mountedOn(f.merged), [], `${way}: nothing is mounted`)
  }
  for (const [way, item] of [
    ['sloppy', misspelt],
    ['sloppyHelper', misspelt],
    ['sloppy', 'metacopy=on'],
    ['alias', 'metacopy=on'],
    ['bare', 'zzzzzz'],
    ['helper', 'zzzzzz'],
  ] as const) {
    const [name = '', ...args] = ways[way](item)
    const child = spawnPlain(`${bin}/${name}`, args)
    await live(t, f, child, new RegExp(`^unknown argument ignored: ${item}\n$`))
  }
})

test(t, 'as podman invokes it', { skip: skipMounts }, async t => {
  const own = scratch(t, 'drop-in')
  const { top } = own
  const bin = programs(top)
  // The directory of a storage driver: layers through short symlinks, with paths relative to it.
  for (const id of ['base', 'app', 'ctr']) {
    for (const part of ['diff', 'work', 'merged', 'empty']) {
      fs.mkdirSync(`${top}/${id}/${part}`, { recursive: true })
    }
  }
  fs.mkdirSync(`${top}/l`)
  fs.symlinkSync('../base/diff', `${top}/l/BASE`)
  fs.symlinkSync('../app/diff', `${top}/l/APP`)
  fs.writeFileSync(`${top}/base/diff/kept`, 'base')
  fs.writeFileSync(`${top}/base/diff/deleted`, 'base')
  fs.writeFileSync(`${top}/app/diff/.wh.deleted`, '')
  const merged = `${top}/ctr/merged`
  own.before(() => {
    if (mountedOn(merged).length > 0) spawnSync('umount', ['-l', merged])
  })
  const label = 'context="system_u:object_r:container_file_t:s0:c115,c703"'
  const call = (...args: string[]) =>
    outcomeOf(
      spawnPlain(`${bin}/fuse-overlayfs`, args, {
        cwd: top,
        // 'close' arrives after the last writer has closed the pipe
        stdio: ['ignore', 'ignore', 'pipe'],
      }),
    )

  const writable = `lowerdir=l/APP:l/BASE,upperdir=ctr/diff,workdir=ctr/work,,volatile,${label}`
  t.match(await call('-o', writable, merged), { status: 0, stderr: '' })
  t.equal(fs.statfsSync(merged).type, 0x65735546, 'is FUSE')
  t.same(fs.readdirSync(merged), ['kept'])
  fs.chmodSync(merged, 0o755)
  t.equal(readAs(NOBODY, `${merged}/kept`), 'base', 'other users have access')
  fs.writeFileSync(`${merged}/kept`, 'changed')
  const [pid = 0] = serversOf(merged)
  t.equal(fs.readlinkSync(`/proc/${pid}/fd/2`), '/dev/null')
  t.equal(spawnSync('umount', [merged]).status, 0)
  await waitUntil('the end of the server', () => serversOf(merged).length === 0)

  // Podman removes the `volatile` directory of the previous mount before it mounts again.
  fs.rmSync(join(top, 'ctr', 'work', 'work', 'incompat', 'volatile'), { recursive: true })
  t.match(await call('-o', `lowerdir=ctr/diff:l/APP:l/BASE:ctr/empty,${label}`, merged), {
    status: 0,
    stderr: '',
  })
  t.equal(fs.readFileSync(`${merged}/kept`, 'utf8'), 'changed')
  t.throws(() => fs.writeFileSync(`${merged}/x`, ''), { code: 'EROFS' })
  t.equal(spawnSync('umount', [merged]).status, 0)
  await waitUntil('the end of the server', () => serversOf(merged).length === 0)

  const failed = await call('-o', 'lowerdir=l/NONE', merged)
  t.match(failed, { status: 32, stderr: /^tsoverlay: lowerdir=.*l\/NONE: no such directory.*\n$/ })
})

const mountFuse = '/sbin/mount.fuse3'
const noMount8 =
  skipMounts || (!fs.existsSync(mountFuse) && 'needs mount.fuse3 (package fuse3)') || false

test(t, 'mount.fuse3 and mount(8)', { skip: noMount8 }, async t => {
  await test(t, 'mount.fuse3', async t => {
    const f = withFile(t)
    const [env, ...rest] = NODE
    const byHelper = (source: string, options: string) =>
      spawn(
        env,
        [...rest.slice(0, -1), mountFuse, source, f.merged, '-t', 'fuse.tsoverlay', '-o', options],
        {
          stdio: ['ignore', 'pipe', 'pipe'],
          env: { ...process.env, PATH: `${programs(f.top)}:${process.env['PATH'] ?? ''}` },
        },
      )
    t.match(await live(t, f, byHelper('none', `rw,${f.options}`)), { source: 'none' })
    t.match(await live(t, f, byHelper('a,b', `${f.options},nodev,nosuid,noexec,noatime`)), {
      source: 'a,b',
      flags: 'rw,nosuid,nodev,noexec,noatime',
    })
    t.match(await live(t, f, byHelper('x', `${f.options},fsname=y,x-systemd.automount,nofail`)), {
      source: 'y',
    })
  })

  await test(t, 'mount.tsoverlay', async t => {
    const f = withFile(t)
    fs.mkdirSync(`${f.top}/helpers`)
    fs.symlinkSync(PROGRAM, `${f.top}/helpers/mount.tsoverlay`)
    // mount(8) looks for helpers in /sbin. A bind mount covers /sbin in a temporary mount
    // namespace.
    const script = `
      mount --bind "$1/helpers" /sbin
      mount -f -t tsoverlay none "$1/merged" -o "$2"
      grep " $1/merged " /proc/self/mounts && exit 9
      mount -v -t tsoverlay none "$1/merged" -o "noatime,nosuid,$2"
      grep " $1/merged " /proc/self/mounts
      cat "$1/merged/from-lower"
      umount "$1/merged"
    `
    const shell = ['--propagation', 'private', '-m', 'bash', '-ec', script, 'bash', f.top]
    const outcome = await outcomeOf(
      spawn('env', ['-u', 'NODE_OPTIONS', 'unshare', ...shell, f.options], {
        stdio: ['ignore', 'pipe', 'pipe'],
      }),
    )
    t.match(outcome, {
      status: 0,
      stdout: new RegExp(`none ${f.merged} fuse\\.tsoverlay rw,nosuid,noatime,.*\nlower$`),
      stderr: '',
    })
    await waitUntil('the end of the server', () => serversOf(f.merged).length === 0)
  })

  await test(t, 'mount(8), by a line of fstab', async t => {
    const f = withFile(t)
    fs.writeFileSync(
      `${f.top}/fstab`,
      `union ${f.merged} fuse.tsoverlay ${f.options},noauto,nofail,x-systemd.requires=/,dev,suid 0 0\n`,
    )
    // mount(8) runs its helpers with a PATH of its own, so a directory of that PATH is covered in a
    // temporary mount namespace. If only the mountpoint is given, it passes on the options from
    // /proc/self/mountinfo.
    const script = `
      mount --bind "$1/bin" /usr/local/sbin
      mount -T "$1/fstab" "$1/merged"
      grep " $1/merged " /proc/self/mounts
      cat "$1/merged/from-lower"
      mount -T "$1/fstab" -o remount,ro,nosuid "$1/merged"
      grep -q " $1/merged fuse.tsoverlay ro,nosuid," /proc/self/mounts
      mount -o remount,rw,suid "$1/merged"
      echo new > "$1/merged/new"
      umount "$1/merged"
    `
    programs(f.top)
    const shell = ['--propagation', 'private', '-m', 'bash', '-ec', script, 'bash', f.top]
    const outcome = await outcomeOf(
      spawn('env', ['-u', 'NODE_OPTIONS', 'unshare', ...shell], {
        stdio: ['ignore', 'pipe', 'pipe'],
      }),
    )
    t.match(outcome, {
      status: 0,
      stdout: new RegExp(`^union ${f.merged} fuse\\.tsoverlay rw,.*\nlower$`),
      stderr: '',
    })
    t.equal(fs.readFileSync(`${f.upper}/new`, 'utf8'), 'new\n')
    await waitUntil('the end of the server', () => serversOf(f.merged).length === 0)
  })
})

test(t, 'access by other users', { skip: skipMounts }, async t => {
  const f = withFile(t)
  for (const directory of [f.top, f.lower, f.upper]) fs.chmodSync(directory, 0o755)
  const denied = /Permission denied/
  for (const [more, text] of [
    ['', 'lower'],
    [',allow_other', 'lower'],
    [',allow_root,allow_other', 'lower'],
    [',allow_root', denied],
    [',allow_other,allow_root,default_permissions', denied],
  ] as const) {
    const outcome = await tsoverlay('-o', `${f.options}${more}`, f.merged)
    t.match(outcome, SILENT, `as root${more}`)
    t.match(readAs(NOBODY, `${f.merged}/from-lower`), text)
    t.equal(readAs(0, `${f.merged}/from-lower`), 'lower')
    t.match(await tsoverlay('umount', f.merged), SILENT)
  }
})

const USER_NAMESPACE = ['-U', '--map-user=5'] as const
const noOrdinaryUser =
  skipMounts ||
  (spawnSync('unshare', [...USER_NAMESPACE, 'true']).status !== 0 &&
    'needs a user namespace, by unshare(1)')

test(t, 'allow_root is for root', { skip: noOrdinaryUser }, async t => {
  const f = withFile(t)
  const call = [CLI, '-o', `${f.options},allow_root`, f.merged]
  const child = spawn('unshare', [...USER_NAMESPACE, ...NODE, ...call], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.match(await outcomeOf(child), { status: 1, stderr: /^tsoverlay: allow_root: only root can/ })
  t.same(mountedOn(f.merged), [])
})

test(t, 'fsync=0', { skip: skipMounts }, async t => {
  // The upper layer lies on another union, which counts its requests.
  const below = directories(t, 'drop-in')
  const ground = await serve(t, below)
  const top = below.merged
  const [upper, work] = [`${top}/upper`, `${top}/work`]
  const f = withFile(t)
  for (const directory of [upper, work]) fs.mkdirSync(directory)
  const syncs = async (option: string): Promise<number> => {
    const before = (await counters(ground))['op.FSYNC'] ?? 0
    const options = `lowerdir=${f.lower},upperdir=${upper},workdir=${work},${option}`
    const server = await serve(t, { ...f, options })
    const fd = fs.openSync(`${f.merged}/file`, 'w')
    fs.writeSync(fd, 'text')
    for (let i = 0; i < 3; i++) fs.fsyncSync(fd)
    fs.closeSync(fd)
    fs.appendFileSync(`${f.merged}/from-lower`, 'x')
    await server.unmount()
    fs.rmSync(`${upper}/from-lower`)
    t.notOk(fs.existsSync(join(work, 'work', 'incompat')), 'no overlay xattr is left')
    return ((await counters(ground))['op.FSYNC'] ?? 0) - before
  }
  t.ok((await syncs('fsync=1')) > 0, 'fsync=1: the layer gets the sync')
  t.equal(await syncs('fsync=0'), 0, 'fsync=0: the layer gets no sync, not even at copy-up')
  t.equal(await syncs('fsync=1,fsync=0'), 0)
})

test(t, 'writeback and max_write', { skip: skipMounts }, async t => {
  const f = directories(t, 'drop-in')
  for (const [option, flag] of [
    ['io=cached', true],
    ['io=cached,writeback=1', true],
    ['io=cached,writeback=0', false],
  ] as const) {
    const server = await serve(t, { ...f, options: `${f.options},${option}` }, ...debug)
    t.equal((await negotiated(server)).includes('WRITEBACK_CACHE'), flag, option)
    if (!flag) {
      const fd = fs.openSync(`${f.merged}/file`, 'w')
      fs.writeSync(fd, 'text')
      t.equal(fs.readFileSync(`${f.upper}/file`, 'utf8'), 'text', 'is in the layer at once')
      fs.closeSync(fd)
    }
    await server.unmount()
  }
  const writes = async (option: string): Promise<number> => {
    const server = await serve(t, { ...f, options: `${f.options},io=cached,writeback=0,${option}` })
    fs.writeFileSync(`${f.merged}/large`, Buffer.alloc(65536, 'x'))
    const { 'op.WRITE': count = 0 } = await counters(server)
    await server.unmount()
    t.equal(fs.readFileSync(`${f.upper}/large`, 'utf8'), 'x'.repeat(65536))
    return count
  }
  t.equal(await writes('max_write=4096'), 16)
  t.equal(await writes('max_write=16384'), 4)
  t.equal(await writes('max_write=0'), 16, 'at least a page')
})

test(t, 'timeout', { skip: skipMounts }, async t => {
  const f = withFile(t)
  const asked = async (option: string): Promise<number> => {
    const server = await serve(t, { ...f, options: `${f.options}${option}` })
    const questions = async (): Promise<number> => {
      const all = await counters(server)
      return ['op.LOOKUP', 'op.GETATTR', 'op.STATX'].reduce((n, name) => n + (all[name] ?? 0), 0)
    }
    fs.statSync(`${f.merged}/from-lower`)
    const before = await questions()
    for (let i = 0; i < 20; i++) fs.statSync(`${f.merged}/from-lower`)
    const after = await questions()
    await server.unmount()
    return after - before
  }
  t.ok((await asked(',timeout=0')) >= 20, 'timeout=0: the server is asked every time')
  t.ok((await asked(',timeout=1000000000')) < 20)
  t.ok((await asked('')) < 20)
})

/** A POSIX ACL as an xattr value: the owner has rw, one user has r, all others have nothing. */
const aclFor = (uid: number): Buffer => {
  const acl = Buffer.alloc(4 + 5 * 8, 0)
  acl.writeUInt32LE(2, 0)
  const entries: [tag: number, perm: number, id: number][] = [
    [0x01, 6, 0xffff_ffff],
    [0x02, 4, uid],
    [0x04, 0, 0xffff_ffff],
    [0x10, 4, 0xffff_ffff],
    [0x20, 0, 0xffff_ffff],
  ]
  for (const [i, [tag, perm, id]] of entries.entries()) {
    acl.writeUInt16LE(tag, 4 + i * 8)
    acl.writeUInt16LE(perm, 6 + i * 8)
    acl.writeUInt32LE(id, 8 + i * 8)
  }
  return acl
}
const ACL = 'system.posix_acl_access'

test(t, 'noxattrs and noacl', { skip: skipMounts }, async t => {
  const f = withFile(t)
  for (const directory of [f.top, f.lower, f.upper]) fs.chmodSync(directory, 0o755)
  const real = { path: `${f.lower}/from-lower`, follow: false }
  const on = { path: `${f.merged}/from-lower`, follow: false }
  fs.chmodSync(real.path, 0o600)
  const value = Buffer.from('value')
  t.equal(setxattr(real, 'user.a', value, 0), 0)
  t.equal(setxattr(real, ACL, aclFor(NOBODY), 0), 0)
  const union = async (option: string, flag: boolean, look: () => void): Promise<void> => {
    const server = await serve(t, { ...f, options: `${f.options},${option}` }, ...debug)
    t.equal((await negotiated(server)).includes('POSIX_ACL'), flag, option)
    look()
    await server.unmount()
  }

  await union('noxattrs=0', true, () => {
    t.same(getxattr(on, 'user.a'), value)
    t.same(new Set([listxattr(on)].flat()), new Set([ACL, 'user.a']))
    t.equal(readAs(NOBODY, on.path), 'lower', 'the ACL grants access')
  })
  await union('noacl', false, () => {
    t.same(getxattr(on, 'user.a'), value)
    t.same(listxattr(on), ['user.a'])
    t.equal(getxattr(on, ACL), -EOPNOTSUPP)
    t.equal(setxattr(on, ACL, aclFor(1), 0), -EOPNOTSUPP)
    t.equal(removexattr(on, ACL), -EOPNOTSUPP)
    t.match(readAs(NOBODY, on.path), /Permission denied/, 'the mode alone decides')
    t.equal(setxattr(on, 'user.b', value, 0), 0)
  })
  t.same(
    getxattr({ path: `${f.upper}/from-lower`, follow: false }, ACL),
    aclFor(NOBODY),
    'and the ACL went with the copy',
  )
  await union('noxattrs=1', false, () => {
    for (let i = 0; i < 2; i++) {
      t.equal(getxattr(on, 'user.a'), -EOPNOTSUPP)
      t.equal(getxattr(on, ACL), -ENODATA, 'the kernel makes that of it')
      t.same(listxattr(on), -EOPNOTSUPP)
      t.equal(setxattr(on, 'user.c', value, 0), -EOPNOTSUPP)
      t.equal(removexattr(on, 'user.a'), -EOPNOTSUPP)
    }
    t.match(readAs(NOBODY, on.path), /Permission denied/)
    fs.renameSync(on.path, `${f.merged}/moved`)
    fs.mkdirSync(`${f.merged}/from-lower`)
  })
  const moved = { path: `${f.upper}/moved`, follow: false }
  t.same(getxattr(moved, 'user.b'), value, 'the layers keep their own')
  t.equal(getxattr(moved, 'user.c'), -ENODATA)
  t.same(
    getxattr({ path: `${f.upper}/from-lower`, follow: false }, 'trusted.overlay.opaque'),
    Buffer.from('y'),
  )
})

test(t, 'static_nlink', { skip: skipMounts }, async t => {
  const f = directories(t, 'drop-in')
  for (const name of ['a', 'b', 'c']) fs.mkdirSync(`${f.lower}/dir/${name}`, { recursive: true })
  fs.writeFileSync(`${f.upper}/one`, '')
  fs.linkSync(`${f.upper}/one`, `${f.upper}/two`)
  const links = async (option: string) => {
    const server = await serve(t, { ...f, options: `${f.options}${option}` })
    fs.readdirSync(f.merged)
    const of = (name: string): number => fs.lstatSync(`${f.merged}/${name}`).nlink
    const found = ['dir', 'dir/a', 'one'].map(of)
    fs.mkdirSync(`${f.merged}/new/inner`, { recursive: true })
    found.push(of('new'))
    fs.rmSync(`${f.merged}/new`, { recursive: true })
    await server.unmount()
    return found
  }
  t.same(await links(''), [5, 2, 2, 3])
  t.same(await links(',static_nlink'), [1, 1, 2, 1], 'directories have one, files theirs')
})

test(t, 'xino', { skip: skipMounts }, async t => {
  const f = withFile(t)
  const other = `${f.top}/other`
  fs.mkdirSync(other)
  t.equal(mount('none', other, 'tmpfs', 0, ''), 0)
  f.before(() => void spawnSync('umount', [other]))
  for (let i = 0; i < 50; i++) fs.writeFileSync(`${other}/t${i}`, '')
  for (let i = 0; i < 50; i++) fs.writeFileSync(`${f.lower}/e${i}`, '')
  const numbers = async (xino: string, change: boolean): Promise<Map<string, bigint>> => {
    const options = `lowerdir=${f.lower}:${other},upperdir=${f.upper},workdir=${f.work},xino=${xino}`
    const server = await serve(t, { ...f, options })
    const names = fs.readdirSync(f.merged)
    if (change) for (const name of names) fs.chmodSync(`${f.merged}/${name}`, 0o600)
    const found = new Map(
      names.map(name => [name, fs.statSync(`${f.merged}/${name}`, { bigint: true }).ino]),
    )
    await server.unmount()
    return found
  }
  const first = await numbers('off', false)
  t.equal(new Set(first.values()).size, 101, 'no process id twice')
  t.same(await numbers('auto', true), first, 'the same after copy-up')
  t.same(await numbers('on', false), first, 'and after a new mount')
})

test(t, 'options without an effect', { skip: skipMounts }, async t => {
  const f = withFile(t)
  const run = (more: string) => spawnNode([CLI, '-o', `${f.options},${more}`, f.merged])
  await live(t, f, run('threaded=1,xattr_permissions=0,kernel_cache,splice_read,timeout=0'))
  await live(t, f, run('context="u:object_r:f_t:s0:c1,c2",noauto,_netdev,user'))
  await live(
    t,
    f,
    run('fast_ino=1,ino32_t,plugins=/x.so'),
    /^(tsoverlay: (fast_ino=1|ino32_t|plugins=\/x\.so) has no effect: .*\n){3}$/,
  )
})

test(t, 'FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT', { skip: skipMounts }, async t => {
  const f = withFile(t)
  fs.writeFileSync(`${f.lower}/second`, '')
  const env = { ...process.env, FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT: '1' }
  const removing = async (name: string, more: string): Promise<void> => {
    const args = [CLI, '-o', `${f.options}${more}`, f.merged]
    t.match(await outcomeOf(spawnNode(args, { env })), SILENT)
    fs.rmSync(`${f.merged}/${name}`)
    t.match(await tsoverlay('umount', f.merged), SILENT)
  }
  await removing('from-lower', '')
  t.same(fs.readdirSync(f.upper), ['.wh.from-lower'])
  await removing('second', ',whiteout=char')
  t.ok(fs.lstatSync(`${f.upper}/second`).isCharacterDevice(), 'an option comes first')
})

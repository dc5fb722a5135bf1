/**
 * File owners on real mounts: idmaps and squashing, as the options of fuse-overlayfs specify.
 * docs/OWNERS.md and docs/CONTAINERS.md describe these options.
 */

import { spawn, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { fileURLToPath } from 'node:url'

import t, { type Test } from 'tap'

import type { IdRange } from '../../src/overlay/options.js'
import { KernelFs, type Fs } from '../helpers/fs-calls.js'
import { acl, build, dir, fifo, file, symlink, type Layer } from '../helpers/layers.js'
import {
  CLI,
  directories,
  mountedOn,
  NODE,
  outcomeOf,
  serve,
  serversOf,
  skipMounts,
  spawnNode,
  test,
  tsoverlay,
  waitUntil,
  type Directories,
} from '../helpers/mount.js'
import { mountKernel } from '../helpers/parity.js'
import * as sys from '../helpers/syscalls.js'
import { diffTrees, readTree, type Tree } from '../helpers/tree.js'

const MODES = ['cached', 'passthrough'] as const
const OVERFLOW = 65534

const owner = (path: string): string => {
  const stat = sys.lstat(sys.AT_FDCWD, path)
  return typeof stat === 'number' ? `errno ${-stat}` : `${stat.uid}:${stat.gid}`
}

const aclOf = (path: string): string => {
  const value = sys.getxattr({ path, follow: false }, 'system.posix_acl_access')
  return typeof value === 'number' ? `errno ${-value}` : value.latin1Slice()
}

const over = (f: Directories, options: string): Directories => ({
  ...f,
  options: `${f.options},${options}`,
})

test(t, 'uidmapping and gidmapping', { skip: skipMounts }, async t => {
  for (const io of MODES) {
    const f = directories(t, 'owners')
    for (const path of [f.lower, f.upper]) fs.chmodSync(path, 0o777)
    build(f.lower, {
      zero: '',
      one: file('one', { uid: 1, gid: 1 }),
      foreign: file('', { uid: 70_000, gid: 70_000, mode: 0o666 }),
      'sgid/': dir({ mode: 0o2777, gid: 7 }),
      'acl/': dir({
        mode: 0o777,
        xattrs: { 'system.posix_acl_default': acl('u::rwx,u:5:rwx,g::r-x,m::rwx,o::r-x') },
      }),
    })
    const mapping = 'uidmapping=:0:1000:1:1:100000:65535,gidmapping=0:2000:1:1:200000:65535'
    const server = await serve(t, over(f, mapping), '-o', `io=${io}`)
    const { merged, upper } = f
    t.equal(owner(`${merged}/zero`), '1000:2000', io)
    t.equal(owner(`${merged}/one`), '100000:200000')
    t.equal(owner(`${merged}/foreign`), `${OVERFLOW}:${OVERFLOW}`)

    const as = (uid: number, gid: number, script: string) =>
      spawnSync('sh', ['-ec', script], { uid, gid, cwd: merged, encoding: 'utf8' })
    t.match(as(1000, 2000, 'echo x > sgid/f; mkdir sgid/d; ln -s x sgid/s; mkfifo sgid/p'), {
      status: 0,
      stderr: '',
    })
    for (const name of ['f', 'd', 's', 'p']) {
      t.equal(owner(`${upper}/sgid/${name}`), '0:7', `${name} has the directory's group`)
      t.equal(owner(`${merged}/sgid/${name}`), '1000:200006')
    }
    t.match(as(100_004, 200_004, 'umask 0; echo x > acl/f'), { status: 0, stderr: '' })
    t.equal(owner(`${upper}/acl/f`), '5:5')
    t.equal(aclOf(`${upper}/acl/f`), acl('u::rw-,u:5:rwx,g::r-x,m::rw-,o::r--'))
    t.equal(aclOf(`${merged}/acl/f`), acl('u::rw-,u:100004:rwx,g::r-x,m::rw-,o::r--'))
    const facl = spawnSync('setfacl', ['-m', 'u:100009:r,g:2000:w', `${merged}/acl/f`])
    if (facl.status === 0) {
      t.match(aclOf(`${upper}/acl/f`), acl('u::rw-,u:5:rwx,u:10:r--,g::r-x,g:0:-w-,m::rwx,o::r--'))
    }
    t.match(as(5, 5, '! mkdir sgid/new'), { stderr: /Permission denied|Value too large/ })
    // Root has no id on disk here. Podman creates files like this and then changes their owner.
    fs.symlinkSync('x', `${merged}/new`)
    t.equal(owner(`${upper}/new`), `${OVERFLOW}:${OVERFLOW}`)
    fs.lchownSync(`${merged}/new`, 1000, 2000)
    t.equal(owner(`${upper}/new`), '0:0')
    t.throws(() => fs.chownSync(`${merged}/one`, 0, 0), { code: 'EOVERFLOW' })
    fs.chownSync(`${merged}/one`, 1000, 200_009)
    t.equal(owner(`${upper}/one`), '0:10')
    fs.appendFileSync(`${merged}/foreign`, 'x')
    t.equal(owner(`${upper}/foreign`), '70000:70000', 'a copy keeps an owner that is not shown')
    await server.unmount()
  }
})

test(t, 'squash_to_root, squash_to_uid and squash_to_gid', { skip: skipMounts }, async t => {
  for (const [options, shown, made] of [
    ['squash_to_root', '0:0', '12:13'],
    ['squash_to_uid=7', '7:6', '12:13'],
    ['squash_to_gid=8', '5:8', '12:13'],
    ['squash_to_uid=7,squash_to_root', '7:0', '12:13'],
    ['squash_to_uid=7,uidmapping=0:12:1', '7:6', '0:13'],
  ] as const) {
    const f = directories(t, 'owners')
    fs.chmodSync(f.upper, 0o777)
    build(f.lower, { a: file('', { uid: 5, gid: 6 }) })
    const server = await serve(t, over(f, options))
    t.equal(owner(`${f.merged}/a`), shown, options)
    const written = spawnSync('sh', ['-c', ': > b'], { uid: 12, gid: 13, cwd: f.merged })
    t.equal(written.status, 0)
    t.equal(owner(`${f.upper}/b`), made, 'on disk')
    if (options === 'squash_to_root') {
      fs.chownSync(`${f.merged}/a`, 3, 4)
      t.equal(owner(`${f.merged}/a`), '0:0')
      t.equal(owner(`${f.upper}/a`), '3:4')
    }
    await server.unmount()
  }
})

test(t, "the library's options", { skip: skipMounts }, async t => {
  const f = directories(t, 'owners')
  fs.writeFileSync(`${f.lower}/from-lower`, '')
  const program = fileURLToPath(new URL('../fixtures/library.mjs', import.meta.url))
  const { status, stdout, stderr } = await outcomeOf(spawnNode([program, 'owners', f.top]))
  t.same({ status, stderr }, { status: 0, stderr: '' })
  t.same(JSON.parse(stdout), ['5:6', '0:7', '8:0', '9:9', '0:0'])
})

test(t, 'invalid values', { skip: skipMounts }, async t => {
  const f = directories(t, 'owners')
  for (const [option, says] of [
    ['uidmapping=', 'uidmapping: the value is missing; write uidmapping=...'],
    ['uidmapping=0:1000', 'uidmapping=0:1000: not triples of numbers; write DISK:SHOWN:LENGTH'],
    ['gidmapping=a:b:c', 'gidmapping=a:b:c: not triples of numbers; '],
    ['gidmapping=0:0:0', 'gidmapping=0:0:0: 0:0:0 maps nothing; '],
    ['uidmapping=0:1:9:5:20:1', 'uidmapping=0:1:9:5:20:1: 0:1:9 and 5:20:1 overlap on disk; '],
    ['squash_to_root=1', 'squash_to_root=1: this option takes no value; write squash_to_root'],
    ['squash_to_uid=4294967295', 'squash_to_uid=4294967295: not an id; write a number from 0 to '],
    ['squash_to_gid=x', 'squash_to_gid=x: not an id; '],
  ] as const) {
    const outcome = await tsoverlay('-o', `${f.options},${option}`, f.merged)
    t.match(outcome, { status: 1, stdout: '' }, option)
    t.ok(outcome.stderr.startsWith(`tsoverlay: ${says}`), outcome.stderr)
    t.equal(outcome.stderr.split('\n').length, 2, 'one line')
    t.same(mountedOn(f.merged), [])
  }
})

/** A process in a user namespace with these ids; `path` is its /proc/PID/ns/user. */
const namespace = async (
  uids: IdRange[],
  gids: IdRange[],
): Promise<{ path: string; end(): void }> => {
  const child = spawn('unshare', ['--user', 'sleep', '60'], { stdio: 'ignore' })
  const own = fs.readlinkSync('/proc/self/ns/user')
  const path = `/proc/${child.pid}/ns/user`
  await waitUntil('a user namespace', () => fs.readlinkSync(path) !== own)
  for (const [file_, ranges] of [
    ['uid_map', uids],
    ['gid_map', gids],
  ] as const) {
    const text = ranges.map(({ disk, shown, length }) => `${disk} ${shown} ${length}\n`).join('')
    fs.writeFileSync(`/proc/${child.pid}/${file_}`, text)
  }
  return { path, end: () => void child.kill() }
}

// Kernel overlayfs requires that root, which mounts, has an id on disk.
const UIDS: IdRange[] = [
  { disk: 0, shown: 0, length: 1 },
  { disk: 1, shown: 100_000, length: 999 },
]
const GIDS: IdRange[] = [
  { disk: 0, shown: 0, length: 1 },
  { disk: 1, shown: 200_000, length: 60_000 },
]
const text = (ranges: IdRange[]): string =>
  ranges.map(({ disk, shown, length }) => `${disk}:${shown}:${length}`).join(':')

const LAYER: Layer = {
  'd/f': file('file', { uid: 5, gid: 6, mode: 0o4755 }),
  'd/g': file('g', { uid: 0, gid: 0 }),
  'd/s': symlink('x', { uid: 5, gid: 7 }),
  'd/p': fifo({ uid: 3, gid: 8 }),
  'd/': dir({ uid: 3, gid: 3, mode: 0o2777 }),
  'acl/': dir({
    mode: 0o777,
    xattrs: { 'system.posix_acl_default': acl('u::rwx,u:5:rwx,g::r-x,g:9:r-x,m::rwx,o::---') },
  }),
  cap: file('', { xattrs: { 'security.capability': '\x01\0\0\x02\0\x04\0\0' + '\0'.repeat(12) } }),
}

const steps = async (f: Fs): Promise<unknown[]> => {
  const caller = { uid: 100_004, gid: 200_003, umask: 0o022 }
  const other = { uid: 100_900, gid: 200_900, umask: 0o022 }
  const stranger = { uid: 77, gid: 77, umask: 0 }
  return [
    await f.chown('d/f', 0, 200_004),
    await f.chown('d/s', 100_001, -1),
    await f.chown('d/p', -1, 200_001),
    await f.chown('d/g', 5, -1),
    await f.chown('d/g', -1, 5),
    await f.create('d/new', 0o666, caller),
    await f.mkdir('d/dir', 0o777, caller),
    await f.create('d/dir/f', 0o666, other),
    await f.mknod('d/fifo', sys.S.IFIFO | 0o666, 0, 0, other),
    await f.symlink('x', 'd/link', caller),
    await f.create('d/stranger', 0o666, stranger),
    await f.mkdir('d/stranger', 0o777, stranger),
    await f.symlink('x', 'd/stranger', stranger),
    await f.create('d/root', 0o666),
    await f.create('acl/f', 0o666, other),
    await f.mkdir('acl/d', 0o777, other),
    await f.getxattr('acl', 'system.posix_acl_default'),
    await f.setxattr(
      'd/f',
      'system.posix_acl_access',
      acl('u::rwx,u:100009:r-x,g::r-x,m::rwx,o::---'),
    ),
    await f.setxattr('d/g', 'system.posix_acl_access', acl('u::rwx,u:9:r-x,g::r-x,m::rwx,o::---')),
    await f.getxattr('acl/f', 'system.posix_acl_access'),
    await f.getxattr('cap', 'security.capability'),
    await f.setxattr(
      'd/g',
      'security.capability',
      '\x01\0\0\x03\0\x04\0\0' + '\0'.repeat(12) + '\xa1\x86\x01\0',
    ),
    await f.getxattr('d/g', 'security.capability'),
    await f.unlink('d/new'),
    await f.create('d/new', 0o600, caller),
  ]
}

const idmapped = skipMounts || (await cannotIdmap())

/** Why kernel overlayfs can't use idmapped layers here, or false. */
async function cannotIdmap(): Promise<string | false> {
  if (!fs.existsSync('/proc/self/ns/user')) return 'needs user namespaces'
  const ns = await namespace(UIDS, GIDS).catch(() => undefined)
  if (ns === undefined) return 'needs unshare(1) and user namespaces'
  const top = fs.mkdtempSync(`${process.env['TSOVERLAY_TEST_DIR'] ?? '/var/tmp'}/tsoverlay-owners-`)
  const result = sys.bindIdmapped(top, top, ns.path)
  if (result >= 0) sys.umount(top, sys.MNT.DETACH)
  fs.rmdirSync(top)
  ns.end()
  return result < 0 && `idmapped mounts can't be made here: errno ${-result}`
}

/** Removes the differences between two copies of the same layers: file handles and access times. */
const ownersOnly = (tree: Tree): Tree => {
  for (const node of tree.nodes.values()) {
    node.stat = { ...node.stat, atime: 0n }
    node.xattrs = node.xattrs.filter(line => !/^trusted\.overlay\.(origin|uuid)=/.test(line))
  }
  return tree
}

const prepared = (t: Test): Directories & { layers: string } => {
  const f = directories(t, 'owners')
  build(f.lower, LAYER)
  const layers = `${f.top}/layers`
  fs.mkdirSync(layers)
  return { ...f, layers }
}

test(t, 'same results as kernel overlayfs on idmapped layers', { skip: idmapped }, async t => {
  const ns = await namespace(UIDS, GIDS)
  const k = prepared(t)
  for (const name of ['lower', 'upper', 'work'])
    fs.renameSync(`${k.top}/${name}`, `${k.layers}/${name}`)
  const mapped = `${k.top}/mapped`
  fs.mkdirSync(mapped)
  k.before(() => void sys.umount(mapped, sys.MNT.DETACH))
  t.equal(sys.bindIdmapped(k.layers, mapped, ns.path), 0)
  const where = {
    lower: [`${mapped}/lower`],
    upper: `${mapped}/upper`,
    work: `${mapped}/work`,
    merged: k.merged,
  }
  t.equal(mountKernel(where, 'index=on'), 0)
  k.before(() => void sys.umount(k.merged, sys.MNT.DETACH))
  const expected = await steps(new KernelFs(k.merged))
  const wanted = readTree(k.merged)
  sys.umount(k.merged)
  const wantedOnDisk = readTree(`${k.layers}/upper`)

  const options = `uidmapping=${text(UIDS)},gidmapping=${text(GIDS)}`
  for (const io of MODES) {
    // Podman passes lower layers that are already idmapped, and an upper layer that is not.
    for (const lowerIs of ['as it is', 'mapped']) {
      const f = prepared(t)
      const shown = `${f.top}/shown`
      fs.mkdirSync(shown)
      f.before(() => void sys.umount(shown, sys.MNT.DETACH))
      t.equal(lowerIs === 'mapped' ? sys.bindIdmapped(f.lower, shown, ns.path) : 0, 0)
      const directory = lowerIs === 'mapped' ? shown : f.lower
      const layers = `lowerdir=${directory},upperdir=${f.upper},workdir=${f.work}`
      const server = await serve(t, { ...f, options: `${layers},${options}` }, '-o', `io=${io}`)
      const what = `${io}, the lower layer ${lowerIs}`
      t.strictSame(await steps(new KernelFs(f.merged)), expected, `${what}: results`)
      const rules = { now: BigInt(Date.now() - 60_000) * 1_000_000n }
      t.strictSame(diffTrees(wanted, readTree(f.merged), rules), [], 'as it is shown')
      await server.unmount()
      const disk = diffTrees(ownersOnly(wantedOnDisk), ownersOnly(readTree(f.upper)), rules)
      t.strictSame(disk, [], 'on disk')
    }
  }
  ns.end()
})

const STAT = 'user.containers.override_stat'
const statOf = (path: string): string => {
  const value = sys.getxattr({ path, follow: false }, STAT)
  return typeof value === 'number' ? `errno ${-value}` : value.latin1Slice()
}

test(t, 'xattr_permissions', { skip: skipMounts }, async t => {
  for (const io of MODES) {
    const f = directories(t, 'owners')
    build(f.lower, {
      './': dir({ xattrs: { [STAT]: '0:0:0755:dir' } }),
      f: file('text', { xattrs: { [STAT]: '5:6:4755:file' } }),
      null: file('', { mode: 0o600, xattrs: { [STAT]: '0:0:0666:char-1-3' } }),
    })
    const { merged, upper } = f
    const options = `xattr_permissions=2,squash_to_gid=9`
    let server = await serve(t, over(f, options), '-o', `io=${io}`)
    const look = (name: string): string => {
      const stat = sys.lstat(sys.AT_FDCWD, `${merged}/${name}`)
      return typeof stat === 'number'
        ? `errno ${-stat}`
        : `${stat.uid}:${stat.gid}:${stat.mode.toString(8)}:${stat.rdev.toString(16)}`
    }
    t.equal(look('f'), '5:9:104755:0', io)
    t.equal(look('null'), '0:9:20666:100003')
    fs.appendFileSync(`${merged}/null`, 'to the device')
    fs.chmodSync(`${merged}/null`, 0o600)
    t.equal(statOf(`${upper}/null`), '0:0:0600:char-1-3')
    t.equal(fs.statSync(`${upper}/null`).isFile(), true)

    fs.chmodSync(merged, 0o777)
    const made = spawnSync('sh', ['-ec', 'umask 022; echo x > u; mkdir d; mkfifo p; ln -s x l'], {
      uid: 12,
      gid: 13,
      cwd: merged,
      encoding: 'utf8',
    })
    t.match(made, { status: 0, stderr: '' })
    t.equal(statOf(`${upper}/u`), '12:13:0644:file')
    t.equal(statOf(`${upper}/d`), '12:13:0755:dir')
    t.equal(statOf(`${upper}/p`), '12:13:0644:pipe')
    t.equal(
      owner(`${upper}/l`),
      '12:13',
      'a symlink takes no such attribute: its inode has the owner',
    )
    t.equal(owner(`${upper}/u`), '0:0')
    t.equal(look('p'), '12:9:10644:0')
    for (const entry of fs.readdirSync(merged, { withFileTypes: true }))
      t.equal(entry.isFIFO(), entry.name === 'p', `type of ${entry.name}`)

    // A write by another user clears set-id bits, here in the stat override.
    fs.chmodSync(`${merged}/u`, 0o6777)
    t.equal(statOf(`${upper}/u`), '12:13:6777:file')
    t.equal(
      fs.statSync(`${upper}/u`).mode & 0o7777,
      0o755,
      'otherwise any writer could set the xattr',
    )
    spawnSync('sh', ['-c', 'echo y >> u; exec 3>>u; echo z >&3'], { uid: 20, gid: 20, cwd: merged })
    t.equal(fs.readFileSync(`${merged}/u`, 'utf8'), 'x\ny\nz\n')
    t.equal(look('u'), '12:9:100777:0')
    t.equal(statOf(`${upper}/u`), '12:13:0777:file')
    t.equal(statOf(`${merged}/u`), 'errno 61', 'the attribute is not shown')
    t.throws(() => spawnOk('setfattr', ['-n', STAT, '-v', '0:0:4755:file', `${merged}/u`]))

    fs.renameSync(`${merged}/null`, `${merged}/d/null`)
    fs.rmSync(`${merged}/f`)
    await server.unmount()
    server = await serve(t, over(f, options), '-o', `io=${io}`)
    t.equal(look('d/null'), '0:9:20600:100003', 'mounted again')
    t.same(fs.readdirSync(merged).toSorted(), ['d', 'l', 'p', 'u'])
    await server.unmount()
  }
  await test(t, 'in an xattr that only root may write', async t => {
    const f = directories(t, 'owners')
    const server = await serve(t, over(f, 'xattr_permissions=1'))
    fs.writeFileSync(`${f.merged}/f`, '')
    fs.symlinkSync('x', `${f.merged}/l`)
    fs.lchownSync(`${f.merged}/l`, 5, 6)
    fs.chownSync(`${f.merged}/f`, 5, 6)
    const value = (name: string) =>
      sys.getxattr(
        { path: `${f.upper}/${name}`, follow: false },
        'security.fuseoverlayfs.override_stat',
      )
    t.same(value('f'), Buffer.from('5:6:0644:file'))
    t.same(value('l'), Buffer.from('5:6:0777:symlink'))
    t.equal(owner(`${f.upper}/l`), '0:0')
    t.equal(owner(`${f.merged}/l`), '5:6')
    await server.unmount()
  })
  await test(t, 'invalid values', async t => {
    const f = directories(t, 'owners')
    for (const value of ['', '3', 'on']) {
      const outcome = await tsoverlay('-o', `${f.options},xattr_permissions=${value}`, f.merged)
      t.match(outcome, {
        status: 1,
        stdout: '',
        stderr: `tsoverlay: xattr_permissions=${value}: not a value of this option; choose one of 0, 1, 2\n`,
      })
      t.same(mountedOn(f.merged), [])
    }
  })
})

const spawnOk = (command: string, args: string[]): void => {
  const { status, error, stderr } = spawnSync(command, args, { encoding: 'utf8' })
  if (error !== undefined || status !== 0) throw error ?? new Error(stderr)
}

const NAMESPACE = ['--user', '--map-root-user', '--mount'] as const
const noUser =
  skipMounts ||
  (spawnSync('setpriv', ['--reuid=65534', '--clear-groups', 'unshare', ...NAMESPACE, 'true'])
    .status !== 0 &&
    'needs setpriv(1), unshare(1) and user namespaces')

test(t, 'xattr_permissions as an ordinary user', { skip: noUser }, async t => {
  const f = directories(t, 'owners')
  build(f.lower, {
    './': dir({ xattrs: { [STAT]: '5:6:0755:dir' } }),
    null: file('', { uid: 65534, gid: 65534, xattrs: { [STAT]: '5:6:0666:char-1-3' } }),
    other: file('', { uid: 65534, gid: 65534, xattrs: { [STAT]: '7:7:0666:file' } }),
  })
  for (const path of [f.top, f.lower, f.upper, f.work, f.merged]) {
    fs.chmodSync(path, 0o755)
    fs.chownSync(path, 65534, 65534)
  }
  const options = `${f.options},userxattr,uidmapping=5:0:1,gidmapping=6:0:1,xattr_permissions=2`
  // Root of the namespace is user 5 in the layers, which can't be stored as an owner on disk.
  const script = `
    cd "$1"
    : > new; mkdir dir; mkfifo pipe
    chmod 6755 new
    stat -c '%n %u:%g %a %F %t:%T' new dir pipe null other
    rm -f pipe; chmod 600 null; mv null dir/null
    stat -c '%F %a' dir/null
    if ln -s x link 2>/dev/null; then stat -c '%u:%g' link; else echo no link; fi
    cd /; umount "$1"
  `
  // In many places only root may open the device. So this test creates one in its own mount
  // namespace.
  const start = `
    mkdir "$1/dev"; mount -t tmpfs tmpfs "$1/dev"
    mknod "$1/dev/fuse" c 10 229; chmod 666 "$1/dev/fuse"; mount --bind "$1/dev/fuse" /dev/fuse
    exec setpriv --reuid=65534 --regid=65534 --clear-groups \\
      unshare ${NAMESPACE.join(' ')} bash -ec '"\${@:3}"; exec bash -ec "$2" bash "$1"' bash "$2" "$3" "\${@:4}"
  `
  const { status, stdout, stderr } = spawnSync(
    'unshare',
    [
      '--mount',
      '--propagation',
      'private',
      'bash',
      '-ec',
      start,
      'bash',
      f.top,
      f.merged,
      script,
    ].concat([...NODE, CLI, '-o', options, f.merged]),
    // A bash whose standard input is a socket reads ~/.bashrc, and this user can't access root's
    // home.
    { encoding: 'utf8', timeout: 60_000, env: { ...process.env, HOME: '/nonexistent' } },
  )
  t.equal(stderr, '')
  t.equal(status, 0)
  t.same(stdout.trim().split('\n'), [
    'new 0:0 6755 regular empty file 0:0',
    'dir 0:0 755 directory 0:0',
    'pipe 0:0 644 fifo 0:0',
    'null 0:0 666 character special file 1:3',
    'other 65534:65534 666 regular empty file 0:0',
    'character special file 600',
    // A symlink can't be given to user 5, so the call fails.
    'no link',
  ])
  t.equal(statOf(`${f.upper}/new`), '5:6:6755:file')
  t.equal(statOf(`${f.upper}/dir/null`), '5:6:0600:char-1-3')
  t.equal(owner(`${f.upper}/dir/null`), '65534:65534')
  t.equal(sys.lstat(sys.AT_FDCWD, `${f.upper}/pipe`), -2)
  await waitUntil('the end of the server', () => serversOf(f.merged).length === 0)
})

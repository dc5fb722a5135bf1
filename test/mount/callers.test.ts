/**
 * Calls by different callers. Each call is made by callers that differ in one right, on files that
 * differ in owner, mode, ACL and capability. It is made on the union and on kernel overlayfs. Both
 * must return the same result, show the same attributes afterwards (each attribute is read
 * separately, as the kernel caches it), and have the same state on disk. Each run draws a few of
 * all combinations: TSOVERLAY_TEST_DRAWS sets the number for each call and caller,
 * TSOVERLAY_TEST_SEED selects them.
 */

import * as fs from 'node:fs'
import t, { type Test } from 'tap'
import { kernelMounter, mounterFor } from '../differential/mounters.js'
import { CAP, isEffective, withCaller, type Caller } from '../helpers/callers.js'
import { Bench, skipKind, type Kind } from '../helpers/kinds.js'
import * as sys from '../helpers/syscalls.js'

const { O, S, STATX } = sys
const DRAWS = Number(process.env['TSOVERLAY_TEST_DRAWS'] ?? 1)
const SEED = Number(process.env['TSOVERLAY_TEST_SEED'] ?? 1)

const OWNER = 1000
const GROUP = 5000
const root = { uid: 0, gid: 0, groups: [] }
const other = { uid: 1002, gid: 1002, groups: [] }
const CALLERS: Caller[] = [
  { name: 'root', ...root },
  { name: 'root without CAP_FSETID', ...root, lacks: [CAP.FSETID] },
  { name: 'root without CAP_FOWNER', ...root, lacks: [CAP.FOWNER] },
  { name: 'root without three', ...root, lacks: [CAP.FSETID, CAP.FOWNER, CAP.CHOWN] },
  { name: 'the owner', uid: OWNER, gid: OWNER, groups: [] },
  { name: 'the owner, of the group', uid: OWNER, gid: OWNER, groups: [GROUP] },
  { name: 'one of the group', uid: 1001, gid: 1001, groups: [GROUP] },
  { name: 'somebody', ...other },
  { name: 'somebody with CAP_FSETID', ...other, has: [CAP.FSETID] },
  { name: 'somebody with CAP_FOWNER', ...other, has: [CAP.FOWNER] },
  { name: 'somebody with CAP_SYS_ADMIN', ...other, has: [CAP.SYS_ADMIN] },
  { name: 'root without CAP_SYS_ADMIN', ...root, lacks: [CAP.SYS_ADMIN] },
]

/** A caller's view of one file. */
interface Target {
  path: string
  /** Opened by root, O_RDWR. */
  fd: number
  /** Another file, opened for reading. */
  source: number
  /** Descriptors that the call has opened; they are closed after the checks. */
  opened: number[]
}

const TEXT = Buffer.from('W')
const UNCHANGED = 0xffff_ffff
const CAPABILITY = Buffer.from('0100000200040000000000000000000000000000', 'hex')
const NOW = { sec: 0, nsec: sys.UTIME_NOW }
/** u::rwx,g::r-x,o::r-x, and an ACL with a user and a mask. */
const PLAIN_ACL = Buffer.from('0200000001000700ffffffff04000500ffffffff20000500ffffffff', 'hex')
const ACL = Buffer.from(
  '0200000001000600ffffffff02000700ea03000004000500ffffffff10000600ffffffff20000400ffffffff',
  'hex',
)

const own = (on: Target, flags: number, use: (fd: number) => number): number => {
  const fd = sys.open(on.path, flags)
  if (fd < 0) return fd
  on.opened.push(fd)
  return use(fd)
}
const onPath = ({ path }: Target): sys.XattrTarget => ({ path, follow: false })
const chown = (on: Target, uid: number, gid: number): number =>
  sys.fchownat(sys.AT_FDCWD, on.path, uid, gid, sys.AT_SYMLINK_NOFOLLOW)
const storeByMapping = ({ fd }: Target): number =>
  sys.withMapping(fd, 8, sys.PROT.READ | sys.PROT.WRITE, sys.MAP.SHARED, 0, view => {
    view[0] = 0x5a
    return 0
  })
const rename = ({ path }: Target): number => {
  const result = sys.renameat2(sys.AT_FDCWD, path, sys.AT_FDCWD, `${path}.new`, 0)
  return result < 0
    ? result
    : sys.renameat2(sys.AT_FDCWD, `${path}.new`, sys.AT_FDCWD, path, sys.RENAME.NOREPLACE)
}
const names = (on: Target): number => {
  const list = sys.listxattr(onPath(on))
  return typeof list === 'number' ? list : list.filter(name => name.startsWith('trusted.')).length
}

type Act = (on: Target) => number
/** Calls for objects of all types. */
const ANY: Record<string, Act> = {
  'chown to nobody': on => chown(on, UNCHANGED, UNCHANGED),
  'chown to the same': on => chown(on, OWNER, GROUP),
  'chgrp to the same': on => chown(on, UNCHANGED, GROUP),
  "chgrp to the owner's": on => chown(on, UNCHANGED, OWNER),
  'utimensat to now': on => sys.utimensat(sys.AT_FDCWD, on.path, NOW, NOW, sys.AT_SYMLINK_NOFOLLOW),
  'names of trusted attributes': names,
  link: ({ path }) => sys.linkat(sys.AT_FDCWD, path, sys.AT_FDCWD, `${path}.link`, 0),
  rename,
}
/** Calls for objects with a mode. */
const MODE: Record<string, Act> = {
  'chmod 6777': ({ path }) => sys.fchmodat(sys.AT_FDCWD, path, 0o6777),
  'chmod 2745': ({ path }) => sys.fchmodat(sys.AT_FDCWD, path, 0o2745),
  'setting a plain ACL': on => sys.setxattr(onPath(on), 'system.posix_acl_access', PLAIN_ACL, 0),
  'setting an ACL': on => sys.setxattr(onPath(on), 'system.posix_acl_access', ACL, 0),
}
const BY_PATH: Record<string, Act> = {
  'open to write, write': on => own(on, O.WRONLY, fd => sys.pwrite(fd, TEXT, 1)),
  'open to read and write, write': on => own(on, O.RDWR, fd => sys.pwrite(fd, TEXT, 1)),
  'open to append, write': on => own(on, O.WRONLY | O.APPEND, fd => sys.write(fd, TEXT)),
  'open to write with O_TRUNC': on => own(on, O.WRONLY | O.TRUNC, () => 0),
  'open to read with O_TRUNC': on => own(on, O.RDONLY | O.TRUNC, () => 0),
  truncate: ({ path }) => sys.truncate(path, 3),
  'setting an attribute': on => sys.setxattr(onPath(on), 'user.a', TEXT, 0),
  'setting a capability': on => sys.setxattr(onPath(on), 'security.capability', CAPABILITY, 0),
  'removing the capability': on => sys.removexattr(onPath(on), 'security.capability'),
  'removing the ACL': on => sys.removexattr(onPath(on), 'system.posix_acl_access'),
  'setting a flag': on => own(on, O.RDONLY, fd => sys.setFlags(fd, sys.getFlags(fd) | 0x40)),
  'setting append-only': on => own(on, O.RDONLY, fd => sys.setFlags(fd, sys.getFlags(fd) | 0x20)),
}
/** Calls on a descriptor that root has opened. */
const BY_DESCRIPTOR: Record<string, Act> = {
  write: ({ fd }) => sys.pwrite(fd, TEXT, 1),
  'write twice': ({ fd }) => sys.pwrite(fd, TEXT, 1) + sys.pwrite(fd, TEXT, 2),
  ftruncate: ({ fd }) => sys.ftruncate(fd, 3),
  fallocate: ({ fd }) => sys.fallocate(fd, 0, 0, 20),
  'fallocate, keeping the size': ({ fd }) => sys.fallocate(fd, sys.FALLOC.KEEP_SIZE, 0, 20),
  copy_file_range: ({ fd, source }) => sys.copyFileRange(source, 0, fd, 0, 4),
  'storing by a mapping': storeByMapping,
  'storing by a mapping, write': on => {
    const stored = storeByMapping(on)
    return stored < 0 ? stored : sys.pwrite(on.fd, TEXT, 1)
  },
  'fchown to nobody': ({ fd }) => sys.fchownat(fd, '', UNCHANGED, UNCHANGED, sys.AT_EMPTY_PATH),
}

interface Type {
  acts: Record<string, Act>[]
  make: (path: string) => void
}
const device = (type: number, minor: number) => (path: string) => {
  const result = sys.mknodat(sys.AT_FDCWD, path, type | 0o600, 0, minor)
  if (result < 0) throw new Error(`mknod ${path}: errno ${-result}`)
}
const TYPES: Record<string, Type> = {
  file: {
    acts: [BY_PATH, BY_DESCRIPTOR, ANY, MODE],
    make: path => fs.writeFileSync(path, '12345678'),
  },
  directory: { acts: [ANY, MODE], make: path => fs.mkdirSync(path) },
  FIFO: { acts: [ANY, MODE], make: device(S.IFIFO, 0) },
  device: { acts: [ANY, MODE], make: device(S.IFCHR, 5) },
  socket: { acts: [ANY, MODE], make: device(S.IFSOCK, 0) },
  symlink: { acts: [ANY], make: path => fs.symlinkSync('nowhere', path) },
}

interface Case {
  type: string
  act: string
  caller: Caller
  mode: number
  capable: boolean
  place: 'lower' | 'upper'
  uid: number
}
const nameOf = (c: Case): string =>
  `${c.act} by ${c.caller.name}: a ${c.type} of the ${c.place} layer, ${c.uid}'s, mode ${c.mode.toString(8)}${c.capable ? ', with a capability' : ''}`

const MODES = [0o4755, 0o2755, 0o2745, 0o6777, 0o2767, 0o4777, 0o777]
const find = (name: string): Caller => CALLERS.find(caller => caller.name === name)!
/** Cases that have failed in the past. */
const KNOWN: Case[] = (['lower', 'upper'] as const).flatMap(place =>
  (
    [
      ['file', 'open to write, write', 'somebody', 0o4777, 0],
      ['file', 'open to write with O_TRUNC', 'somebody', 0o4777, 0],
      ['file', 'write', 'root without CAP_FSETID', 0o4755, OWNER],
      ['file', 'chown to nobody', 'somebody', 0o4755, 0],
      ['file', 'chown to the same', 'root without CAP_FOWNER', 0o4755, OWNER],
      ['file', 'removing the ACL', 'the owner', 0o2755, OWNER],
      ['FIFO', 'chown to nobody', 'root', 0o4755, OWNER],
      ['device', 'chown to nobody', 'root', 0o6755, OWNER],
      ['file', 'names of trusted attributes', 'root without CAP_SYS_ADMIN', 0o777, OWNER],
      ['file', 'names of trusted attributes', 'somebody with CAP_SYS_ADMIN', 0o777, OWNER],
    ] as const
  ).map(([type, act, caller, mode, uid]) => {
    return { type, act, caller: find(caller), mode, capable: false, place, uid }
  }),
)

let state = SEED >>> 0
const below = (n: number): number => {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
  return (state >>> 8) % n
}
const draw = (type: string, act: string, caller: Caller): Case => ({
  type,
  act,
  caller,
  mode: type === 'symlink' ? 0o777 : MODES[below(MODES.length)]!,
  capable: type === 'file' && below(2) === 0,
  place: below(2) === 0 ? 'lower' : 'upper',
  uid: below(2) === 0 ? OWNER : 0,
})
const CASES: Case[] = [...KNOWN]
for (const [type, { acts }] of Object.entries(TYPES))
  for (const act of acts.flatMap(each => Object.keys(each)))
    for (const caller of CALLERS)
      for (let n = type === 'file' || below(3) === 0 ? DRAWS : 0; n > 0; n--)
        CASES.push(draw(type, act, caller))

const LONG_AGO = { sec: 1_500_000_000, nsec: 5 }
const LONG_AGO_NS = 1_500_000_000_000_000_005n

const prepare = (path: string, c: Case): void => {
  TYPES[c.type]!.make(path)
  fs.lchownSync(path, c.uid, c.uid === 0 ? 0 : GROUP)
  if (c.type !== 'symlink') fs.chmodSync(path, c.mode)
  const on = { path, follow: false }
  sys.setxattr(on, 'trusted.t', TEXT, 0)
  if (c.capable) sys.setxattr(on, 'security.capability', CAPABILITY, 0)
  sys.utimensat(sys.AT_FDCWD, path, LONG_AGO, LONG_AGO, sys.AT_SYMLINK_NOFOLLOW)
}

const PARTS = ['mode', 'nlink', 'uid', 'size', 'mtime', 'ctime'] as const
const MASKS: Record<(typeof PARTS)[number], number> = {
  mode: STATX.MODE,
  nlink: STATX.NLINK,
  uid: STATX.UID,
  size: STATX.SIZE,
  mtime: STATX.MTIME,
  ctime: STATX.CTIME,
}

/**
 * Reads the attributes of a path, each separately first, because the kernel caches them separately.
 */
const look = (path: string): { st: sys.Stat | number; text: string } => {
  const parts = PARTS.map(part => {
    const st = sys.statx(sys.AT_FDCWD, path, sys.AT_SYMLINK_NOFOLLOW, MASKS[part])
    return typeof st === 'number' ? st : st[part]
  })
  const st = sys.lstat(sys.AT_FDCWD, path)
  if (typeof st === 'number') return { st, text: `errno ${-st}` }
  const stale = PARTS.flatMap((part, i) => (st[part] === parts[i] ? [] : [`stale ${part}`]))
  const capability = sys.getxattr({ path, follow: false }, 'security.capability')
  const type = st.mode & S.IFMT
  const text = [
    st.mode.toString(8),
    `${st.uid}:${st.gid}`,
    // Size and link count of a directory depend on the file system and the layers.
    type === S.IFDIR ? '' : `${st.size} bytes, nlink ${st.nlink}`,
    st.mtime === LONG_AGO_NS ? 'old' : 'new',
    typeof capability === 'number' ? '' : 'capable',
    ...stale,
  ]
  return { st, text: text.join(' ') }
}

/** The path of a union's object on disk. */
const onDisk = (b: Bench, name: string): string => {
  const upper = `${b.upper}/${name}`
  return typeof sys.lstat(sys.AT_FDCWD, upper) === 'number' ? `${b.lower}/${name}` : upper
}

/** Makes the kernel write its dirty pages. */
const flush = (path: string): void => {
  const fd = sys.open(path, O.RDONLY | O.NONBLOCK)
  if (fd < 0) return
  sys.fsync(fd)
  sys.close(fd)
}

const attempt = (b: Bench, c: Case, name: string, source: number): string => {
  const path = `${b.m}/${name}`
  look(path)
  const act = TYPES[c.type]!.acts.find(each => each[c.act] !== undefined)![c.act]!
  const target: Target = { path, fd: -1, source, opened: [] }
  if (c.act in BY_DESCRIPTOR) target.fd = b.open(path, O.RDWR)
  const result = withCaller(c.caller, () => act(target))
  const shown = look(path)
  if (c.type === 'file' && b.kind.mounter.writeBack) flush(path)
  const disk = look(onDisk(b, name))
  const out = [`result ${result}`, `shown ${shown.text}`, `stored ${disk.text}`]
  const isUpper = onDisk(b, name).startsWith(b.upper)
  if (b.kind.noOpen !== true) out.push(isUpper ? 'copied up' : 'not copied up')
  if (typeof shown.st !== 'number' && typeof disk.st !== 'number' && !b.kind.mounter.writeBack)
    for (const time of ['mtime', 'ctime'] as const)
      if (shown.st[time] !== disk.st[time]) out.push(`${time} is not what is stored`)
  for (const fd of target.opened) sys.close(fd)
  if (target.fd >= 0) sys.close(target.fd)
  return out.join('\n')
}

const answers = (kind: Kind): string[] => {
  const b = new Bench(kind)
  try {
    for (const directory of [b.lower, b.upper]) fs.chmodSync(directory, 0o777)
    CASES.forEach((c, i) => prepare(`${c.place === 'lower' ? b.lower : b.upper}/${i}`, c))
    fs.writeFileSync(`${b.lower}/source`, '12345678')
    b.mount()
    const source = b.open(`${b.m}/source`, O.RDONLY)
    const out = CASES.map((c, i) => attempt(b, c, String(i), source))
    sys.close(source)
    CASES.forEach((c, i) => {
      if (c.act !== 'setting append-only') return
      const fd = sys.open(`${b.m}/${i}`, O.RDONLY)
      sys.setFlags(fd, 0)
      sys.close(fd)
    })
    return out
  } finally {
    b.end()
  }
}

const WITH = ['cached', 'passthrough', 'cached,writeback=0', 'cached,noopen']
const KINDS: Kind[] = WITH.map(io => ({
  name: `tsoverlay io=${io}`,
  kernel: false,
  noOpen: io.includes('noopen'),
  mounter: {
    ...mounterFor('tsoverlay', io),
    writeBack: io.startsWith('cached') && !io.includes('writeback=0'),
  },
}))
const KERNEL: Kind = { name: 'kernel overlayfs', kernel: true, mounter: kernelMounter }

/**
 * Without CAP_SYS_PTRACE the server can't see the system call of a process. It then takes these
 * calls for a change of data (docs/SEMANTICS.md, "Set-id bits and
 * capabilities").
 */
const seesCalls = isEffective(CAP.SYS_PTRACE)
const isSeen = ({ act }: { act: string }): boolean => seesCalls || !act.endsWith('chown to nobody')

const compare = (t: Test, kind: Kind, expected: string[]): void => {
  const got = answers(kind)
  let different = 0
  if (!seesCalls) t.comment('chown to nobody is left out: it needs CAP_SYS_PTRACE')
  CASES.forEach((c, i) => {
    if (!isSeen(c)) return
    const wanted =
      kind.noOpen === true ? expected[i]!.replace(/\n(?:not )?copied up/, '') : expected[i]!
    if (got[i] === wanted) return
    different++
    t.equal(got[i], wanted, nameOf(c))
  })
  t.equal(different, 0, `${CASES.length} calls, seed ${SEED}`)
}

const skip = skipKind(KERNEL)
t.test('the same results for each caller as on kernel overlayfs', { skip }, async t => {
  const expected = answers(KERNEL)
  for (const kind of KINDS) await t.test(kind.name, async t => compare(t, kind, expected))
})

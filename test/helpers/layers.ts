/**
 * Creates directories of unions from literal descriptions:
 *
 *     { 'd/': dir({ xattrs: { 'trusted.overlay.opaque': 'y' } }), 'd/f': 'text', gone: whiteout }
 *
 * A key is a path in the layer, one character per byte. With `/` at its end it is a directory; './'
 * is the layer itself. Parent directories are created as needed. Everything without times in the
 * description gets the same past times, so that two copies are equal and every change of a time is
 * visible.
 */

import * as fs from 'node:fs'
import type { Test } from 'tap'
import * as sys from './syscalls.js'
import type { Time } from './syscalls.js'

/** Properties of objects of all types. */
export interface Traits {
  mode?: number
  uid?: number
  gid?: number
  atime?: Time
  mtime?: Time
  /** Values are byte strings. */
  xattrs?: Record<string, string>
}

export interface Spec extends Traits {
  type: 'file' | 'dir' | 'symlink' | 'node' | 'link'
  /** A file's content, a symlink's target, the first name of a hard link. */
  text?: string
  /** Files: further pieces of content at offsets; the gaps are holes. */
  pieces?: [offset: number, text: string][]
  /** Files: the size, if content does not determine it. */
  size?: number
  /** Nodes: S_IFIFO, S_IFSOCK, S_IFCHR or S_IFBLK. */
  format?: number
  major?: number
  minor?: number
  /** FS_*_FL, set at the end. */
  flags?: number
}

/** A string is a file with this content. */
export type Layer = Record<string, string | Spec>

export const file = (text: string, more: Partial<Spec> = {}): Spec => ({
  type: 'file',
  text,
  ...more,
})
export const dir = (more: Partial<Spec> = {}): Spec => ({ type: 'dir', ...more })
export const symlink = (target: string, more: Traits = {}): Spec => ({
  type: 'symlink',
  text: target,
  ...more,
})
/** Another name of a file that the description contains before it. */
export const link = (first: string): Spec => ({ type: 'link', text: first })
export const fifo = (more: Traits = {}): Spec => ({ type: 'node', format: sys.S.IFIFO, ...more })
export const socket = (more: Traits = {}): Spec => ({ type: 'node', format: sys.S.IFSOCK, ...more })
export const device = (
  kind: 'char' | 'block',
  major: number,
  minor: number,
  more: Traits = {},
): Spec => ({
  type: 'node',
  format: kind === 'char' ? sys.S.IFCHR : sys.S.IFBLK,
  major,
  minor,
  ...more,
})

export const whiteout: Spec = device('char', 0, 0, { mode: 0 })
/** It is a whiteout only in a directory with the opaque xattr `x`. */
export const xattrWhiteout = (prefix = 'trusted'): Spec =>
  file('', { mode: 0, xattrs: { [`${prefix}.overlay.whiteout`]: 'y' } })
/** A directory with overlay xattrs. */
export const withOverlayXattrs = (
  marks: Record<string, string>,
  more: Partial<Spec> = {},
  prefix = 'trusted',
): Spec => ({
  ...dir(more),
  xattrs: {
    ...more.xattrs,
    ...Object.fromEntries(
      Object.entries(marks).map(([mark, value]) => [`${prefix}.overlay.${mark}`, value]),
    ),
  },
})
export const opaque = (prefix = 'trusted'): Spec => withOverlayXattrs({ opaque: 'y' }, {}, prefix)

const TAGS: Record<string, number> = { u: 1, g: 4, m: 0x10, o: 0x20 }

/** The xattr value of an ACL: `u::rwx,u:1000:r-x,g::r-x,m::rwx,o::---`. */
export const acl = (text: string): string => {
  const entries = text.split(',').map(entry => {
    const [tag = '', id = '', perm = ''] = entry.split(':')
    const bits = ['r', 'w', 'x'].reduce((sum, c, i) => sum + (perm.includes(c) ? 4 >> i : 0), 0)
    return { tag: (TAGS[tag] ?? 0) << (id === '' ? 0 : 1), bits, id }
  })
  const out = Buffer.alloc(4 + 8 * entries.length)
  out.writeUInt32LE(2, 0)
  for (const [i, entry] of entries.entries()) {
    out.writeUInt16LE(entry.tag, 4 + 8 * i)
    out.writeUInt16LE(entry.bits, 6 + 8 * i)
    out.writeUInt32LE(entry.id === '' ? 0xffffffff : Number(entry.id), 8 + 8 * i)
  }
  return out.toString('latin1')
}

/** The times of everything without times in its description. */
export const PAST: Time = { sec: 1_000_000_000, nsec: 123_456_789 }

const expectSuccess = (result: number, what: string): number => {
  if (result < 0) throw new Error(`${what}: errno ${-result}`)
  return result
}

/** Creates a described layer in an existing directory. */
export const build = (top: string, layer: Layer): void => {
  const made: string[] = []
  const late: [path: string, spec: Spec][] = [['.', dir()]]
  const parents = (path: string): void => {
    for (let at = path.indexOf('/'); at > 0; at = path.indexOf('/', at + 1)) {
      const directory = path.slice(0, at)
      if (made.includes(directory)) continue
      expectSuccess(sys.mkdirat(sys.AT_FDCWD, `${top}/${directory}`, 0o755), `mkdir ${directory}`)
      made.push(directory)
      late.push([directory, dir()])
    }
  }
  for (const [key, item] of Object.entries(layer)) {
    const path = key.replace(/\/$/, '')
    const spec =
      typeof item !== 'string' ? item : item === '' && key.endsWith('/') ? dir() : file(item)
    parents(path)
    if (spec.type === 'dir') {
      if (path !== '.' && !made.includes(path)) {
        expectSuccess(sys.mkdirat(sys.AT_FDCWD, `${top}/${path}`, 0o755), `mkdir ${path}`)
        made.push(path)
      }
    } else make(top, path, spec)
    if (spec.type !== 'link') late.push([path, spec])
  }
  // Times are set last, deepest directories first, because every change in a directory changes its
  // times.
  for (const [path, spec] of late) finish(`${top}/${path}`, spec)
  for (const [path, spec] of late.toReversed()) setTimes(`${top}/${path}`, spec)
  for (const [path, spec] of late) if (spec.flags !== undefined) setFlags(top, path, spec.flags)
}

const make = (top: string, path: string, spec: Spec): void => {
  const full = `${top}/${path}`
  const at = sys.AT_FDCWD
  switch (spec.type) {
    case 'file':
      writeFile(full, spec)
      break
    case 'symlink':
      expectSuccess(sys.symlinkat(spec.text ?? '', at, full), `symlink ${path}`)
      break
    case 'link':
      expectSuccess(sys.linkat(at, `${top}/${spec.text}`, at, full, 0), `link ${path}`)
      break
    case 'node':
      expectSuccess(
        sys.mknodat(at, full, (spec.format ?? 0) | 0o644, spec.major ?? 0, spec.minor ?? 0),
        `mknod ${path}`,
      )
      break
    case 'dir':
      break
  }
}

const writeFile = (full: string, spec: Spec): void => {
  const fd = expectSuccess(
    sys.open(full, sys.O.WRONLY | sys.O.CREAT | sys.O.EXCL, 0o644),
    `create ${full}`,
  )
  for (const [offset, text] of [[0, spec.text ?? ''] as const, ...(spec.pieces ?? [])])
    if (text !== '')
      expectSuccess(sys.pwrite(fd, Buffer.from(text, 'latin1'), offset), `write ${full}`)
  if (spec.size !== undefined) expectSuccess(sys.ftruncate(fd, spec.size), `truncate ${full}`)
  sys.close(fd)
}

const finish = (full: string, spec: Spec): void => {
  const at = sys.AT_FDCWD
  if (spec.uid !== undefined || spec.gid !== undefined)
    expectSuccess(
      sys.fchownat(at, full, spec.uid ?? -1, spec.gid ?? -1, sys.AT_SYMLINK_NOFOLLOW),
      `chown ${full}`,
    )
  if (spec.mode !== undefined && spec.type !== 'symlink')
    expectSuccess(sys.fchmodat(at, full, spec.mode), `chmod ${full}`)
  for (const [name, value] of Object.entries(spec.xattrs ?? {}))
    expectSuccess(
      sys.setxattr({ path: full, follow: false }, name, Buffer.from(value, 'latin1'), 0),
      `setxattr ${name} ${full}`,
    )
}

const setTimes = (full: string, spec: Spec): void => {
  expectSuccess(
    sys.utimensat(
      sys.AT_FDCWD,
      full,
      spec.atime ?? PAST,
      spec.mtime ?? PAST,
      sys.AT_SYMLINK_NOFOLLOW,
    ),
    `utimens ${full}`,
  )
}

const setFlags = (top: string, path: string, flags: number): void => {
  const fd = expectSuccess(sys.open(`${top}/${path}`, sys.O.RDONLY), `open ${path}`)
  // The flags are added, because a file system does not allow clearing some of its own.
  expectSuccess(sys.setFlags(fd, sys.getFlags(fd) | flags), `setflags ${path}`)
  sys.close(fd)
}

/** The directories of a union, in one directory that is removed at the end of the test. */
export interface UnionDirectories {
  top: string
  lower: string[]
  upper: string
  work: string
  /** An empty directory to mount on. */
  merged: string
}

const scratchDirectories = new WeakMap<Test, string[]>()

/**
 * A directory of the test's own. At the end of the test the mounts in it are detached and it is
 * removed.
 */
export const scratch = (t: Test, on: 'disk' | 'tmpfs' = 'disk'): string => {
  const base = process.env['TSOVERLAY_TEST_DIR'] ?? '/var/tmp'
  const top = fs.realpathSync(fs.mkdtempSync(`${base}/tsoverlay-unit-`))
  if (on === 'tmpfs')
    expectSuccess(sys.mount('none', top, 'tmpfs', sys.MS.NOATIME, ''), 'mount of a tmpfs')
  const own = scratchDirectories.get(t)
  if (own !== undefined) own.push(top)
  else {
    const tops = [top]
    scratchDirectories.set(t, tops)
    t.teardown(() => {
      for (const path of tops) remove(path)
    })
  }
  return top
}

const remove = (top: string): void => {
  for (const line of fs.readFileSync('/proc/self/mounts', 'latin1').split('\n').toReversed()) {
    const point = line.split(' ')[1]
    if (point === top || point?.startsWith(`${top}/`) === true) sys.umount(point, sys.MNT.DETACH)
  }
  removeTree(top)
}

/** FS_IMMUTABLE_FL and FS_APPEND_FL. */
const PROTECTED = 0x30

/** `rm -rf`, for trees of any depth and files with any flags. */
export const removeTree = (path: string): void => {
  const clear = (fd: number): void => {
    const entries = sys.allDirents(fd)
    if (typeof entries === 'number') return
    for (const { name } of entries) {
      if (name === '.' || name === '..') continue
      if (sys.unlinkat(fd, name, 0) === 0) continue
      if (sys.unlinkat(fd, name, sys.AT_REMOVEDIR) === 0) continue
      const below = sys.openat(fd, name, sys.O.RDONLY | sys.O.NOFOLLOW | sys.O.NONBLOCK)
      if (below < 0) continue
      const flags = sys.getFlags(below)
      if (flags > 0 && (flags & PROTECTED) !== 0) sys.setFlags(below, flags & ~PROTECTED)
      clear(below)
      sys.close(below)
      if (sys.unlinkat(fd, name, sys.AT_REMOVEDIR) < 0) sys.unlinkat(fd, name, 0)
    }
  }
  const fd = sys.open(path, sys.O.RDONLY | sys.O.DIRECTORY | sys.O.NOFOLLOW)
  if (fd >= 0) {
    clear(fd)
    sys.close(fd)
  }
  sys.unlinkat(sys.AT_FDCWD, path, fd >= 0 ? sys.AT_REMOVEDIR : 0)
}

/**
 * Creates the directories `1`, `2`, … (lower layers, topmost first), `upper`, `work` and `merged`.
 */
export const unionDirectories = (
  t: Test,
  layers: { lower: Layer[]; upper?: Layer | undefined },
  top = scratch(t),
): UnionDirectories => {
  const made = (name: string): string => {
    fs.mkdirSync(`${top}/${name}`)
    return `${top}/${name}`
  }
  const lower = layers.lower.map((layer, i) => {
    const path = made(String(i + 1))
    build(path, layer)
    return path
  })
  const upper = made('upper')
  build(upper, layers.upper ?? {})
  return { top, lower, upper, work: made('work'), merged: made('merged') }
}

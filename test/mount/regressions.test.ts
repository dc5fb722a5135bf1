/**
 * Errors of userspace unions, each as a separate test. All run on kernel overlayfs first
 * (index=on): a failure there is an error of the test.
 */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import t, { type Test } from 'tap'
import { Bench, KINDS, notNoOpen, skipKind, type Kind } from '../helpers/kinds.js'
import * as sys from '../helpers/syscalls.js'
import { notNative } from '../helpers/transport.js'
import { readTree } from '../helpers/tree.js'

const { O, S } = sys
const EPERM = -1
const ENOENT = -2
const EEXIST = -17
const EXDEV = -18
const EINVAL = -22
const ENAMETOOLONG = -36
const ENOTEMPTY = -39
const ENODATA = -61
const FS_IMMUTABLE_FL = 0x10
const FS_APPEND_FL = 0x20

const text = (path: string): string => fs.readFileSync(path, 'latin1')
const read = (fd: number, length = 65536, at = 0): string => {
  const buf = Buffer.alloc(length)
  const got = sys.pread(fd, buf, at)
  return got < 0 ? `errno ${-got}` : buf.toString('latin1', 0, got)
}
const put = (path: string, content: string, mode = 0o644): void => {
  fs.writeFileSync(path, content, { mode })
  fs.chmodSync(path, mode)
}
const LONG_AGO = { sec: -300_000_000, nsec: 7 }
const setTimes = (path: string, time: sys.Time): number =>
  sys.utimensat(sys.AT_FDCWD, path, time, time, sys.AT_SYMLINK_NOFOLLOW)
const whiteout = (path: string): void => {
  const result = sys.mknodat(sys.AT_FDCWD, path, S.IFCHR, 0, 0)
  if (result < 0) throw new Error(`mknod ${path}: errno ${-result}`)
}
/** Runs in a separate process, because a hanging call would block the test. */
const inTime = (t: Test, what: string, program: string, ...args: string[]) => {
  const result = spawnSync(program, args, {
    encoding: 'utf8',
    timeout: 20_000,
    killSignal: 'SIGKILL',
  })
  t.equal(result.signal, null, `${what}: comes back`)
  return result
}

interface Regression {
  name: string
  lowers?: number
  /** Why kernel overlayfs is skipped. */
  notKernel?: string
  run: (t: Test, b: Bench) => void
}

const writeMapped = (view: Uint8Array): void => view.set(Buffer.from('MAPPED'))

const REGRESSIONS: Regression[] = [
  {
    name: 'a lower file that is open for reading is not written through',
    run(t, b) {
      put(`${b.lower}/f`, 'lower data')
      b.mount()
      const reader = b.open(`${b.m}/f`, O.RDONLY)
      t.equal(read(reader), 'lower data')
      const writer = b.open(`${b.m}/f`, O.RDWR)
      t.equal(sys.pwrite(writer, Buffer.from('NEW'), 0), 3)
      t.equal(sys.fsync(writer), 0)
      t.equal(read(writer), 'NEWer data', 'the writer reads what it wrote')
      t.equal(read(reader), 'NEWer data', 'so does the reader')
      const mapped = sys.withMapping(writer, 4096, 3, sys.MAP.SHARED, 0, view => {
        view[0] = 0x6e
        return true
      })
      t.equal(mapped, true)
      sys.close(writer)
      sys.close(reader)
      t.equal(text(`${b.lower}/f`), 'lower data', 'the lower file is unchanged')
      t.equal(text(`${b.m}/f`), 'nEWer data')
      b.umount()
      t.equal(text(`${b.upper}/f`), 'nEWer data', 'the upper file contains it')
    },
  },
  {
    name: 'a directory that was removed and created again is empty, also after a remount',
    run(t, b) {
      fs.mkdirSync(`${b.lower}/d/sub`, { recursive: true })
      put(`${b.lower}/d/old`, 'old')
      put(`${b.lower}/d/sub/old`, 'old')
      b.mount()
      fs.rmSync(`${b.m}/d`, { recursive: true })
      fs.mkdirSync(`${b.m}/d`)
      for (const when of ['at once', 'after a remount']) {
        t.same(b.list(`${b.m}/d`), [], when)
        t.equal(sys.lstat(sys.AT_FDCWD, `${b.m}/d/old`), ENOENT, `${when}: not found either`)
        b.remount()
      }
      fs.mkdirSync(`${b.m}/d/sub`)
      b.remount()
      t.same(b.list(`${b.m}/d/sub`), [], 'the same below it')
    },
  },
  {
    name: 'deleted names stay deleted, also in the root directory',
    run(t, b) {
      fs.mkdirSync(`${b.lower}/d`)
      put(`${b.lower}/f`, 'f')
      put(`${b.lower}/d/f`, 'f')
      b.mount()
      fs.unlinkSync(`${b.m}/f`)
      fs.unlinkSync(`${b.m}/d/f`)
      b.remount()
      t.same(b.list(b.m), ['d'])
      t.same(b.list(`${b.m}/d`), [])
      t.equal(sys.lstat(sys.AT_FDCWD, `${b.m}/f`), ENOENT)
    },
  },
  {
    name: 'a modified hard-linked lower file never returns old data',
    run(t, b) {
      put(`${b.lower}/h1`, 'the old content, longer\n')
      fs.linkSync(`${b.lower}/h1`, `${b.lower}/h2`)
      fs.mkdirSync(`${b.lower}/d`)
      fs.linkSync(`${b.lower}/h1`, `${b.lower}/d/h3`)
      b.mount()
      fs.writeFileSync(`${b.m}/h1`, 'new\n')
      for (const when of ['at once', 'after a remount']) {
        for (const name of ['h1', 'h2', 'd/h3']) {
          t.equal(text(`${b.m}/${name}`), 'new\n', `${name} ${when}`)
          t.equal(b.stat(`${b.m}/${name}`).nlink, 3, `links of ${name} ${when}`)
          t.equal(
            b.stat(`${b.m}/${name}`).ino,
            b.stat(`${b.m}/h1`).ino,
            `number of ${name} ${when}`,
          )
        }
        b.remount()
      }
      fs.appendFileSync(`${b.m}/d/h3`, 'more\n')
      t.equal(text(`${b.m}/h2`), 'new\nmore\n', 'through another name after a remount')
      t.equal(text(`${b.lower}/h1`), 'the old content, longer\n')
    },
  },
  {
    name: 'hard links keep one inode number, one content and the right count',
    run(t, b) {
      put(`${b.lower}/h1`, 'x')
      fs.linkSync(`${b.lower}/h1`, `${b.lower}/h2`)
      put(`${b.lower}/single`, 's')
      b.mount()
      t.equal(b.stat(`${b.m}/h2`).nlink, 2, 'although h1 was not looked up')
      const ino = b.stat(`${b.m}/h1`).ino
      fs.chmodSync(`${b.m}/h1`, 0o600)
      t.equal(b.stat(`${b.m}/h1`).ino, ino, 'the inode number is the same after copy-up')
      t.equal(b.stat(`${b.m}/h2`).ino, ino)
      t.equal(b.stat(`${b.m}/h2`).mode & 0o777, 0o600)
      fs.unlinkSync(`${b.m}/h1`)
      t.equal(b.stat(`${b.m}/h2`).nlink, 1, 'after one is removed')
      fs.linkSync(`${b.m}/single`, `${b.m}/second`)
      t.equal(b.stat(`${b.m}/single`).nlink, 2, 'link() of a lower file')
      t.equal(b.stat(`${b.m}/single`).ino, b.stat(`${b.m}/second`).ino)
    },
  },
  {
    name: 'umask is applied, and nothing else',
    run(t, b) {
      fs.mkdirSync(`${b.lower}/d`)
      b.mount()
      for (const [mask, file, dir] of [
        [0o077, 0o600, 0o700],
        [0, 0o666, 0o777],
        [0o022, 0o644, 0o755],
      ] as const) {
        const at = `${b.m}/d/m${mask}`
        sys.umask(mask)
        fs.mkdirSync(at)
        sys.close(b.open(`${at}/f`, O.CREAT | O.WRONLY, 0o666))
        sys.mknodat(sys.AT_FDCWD, `${at}/p`, S.IFIFO | 0o666, 0, 0)
        sys.mknodat(sys.AT_FDCWD, `${at}/n`, S.IFREG | 0o666, 0, 0)
        sys.umask(0o022)
        t.equal(b.stat(at).mode & 0o7777, dir, `directory, umask ${mask}`)
        for (const name of ['f', 'p', 'n'])
          t.equal(b.stat(`${at}/${name}`).mode & 0o7777, file, `${name}, umask ${mask}`)
      }
    },
  },
  {
    name: 'a directory keeps its mode, owner and times over copy-up',
    run(t, b) {
      for (const [name, mode] of [
        ['private', 0o700],
        ['sticky', 0o1777],
        ['group', 0o2750],
        ['none', 0],
      ] as const) {
        fs.mkdirSync(`${b.lower}/${name}/sub`, { recursive: true })
        put(`${b.lower}/${name}/sub/f`, 'f')
        fs.chownSync(`${b.lower}/${name}`, 1000, 2000)
        fs.chmodSync(`${b.lower}/${name}`, mode)
        setTimes(`${b.lower}/${name}/sub`, LONG_AGO)
        setTimes(`${b.lower}/${name}`, LONG_AGO)
      }
      b.mount()
      for (const name of ['private', 'sticky', 'group', 'none']) {
        const before = b.stat(`${b.m}/${name}`)
        fs.chmodSync(`${b.m}/${name}/sub/f`, 0o600)
        for (const when of ['at once', 'on disk']) {
          const now = b.stat(`${when === 'on disk' ? b.upper : b.m}/${name}`)
          t.equal(now.mode, before.mode, `mode of ${name} ${when}`)
          t.equal(`${now.uid}:${now.gid}`, '1000:2000', `owner of ${name} ${when}`)
          t.equal(now.mtime, before.mtime, `time of ${name} ${when}`)
        }
      }
    },
  },
  {
    name: 'times before 1970',
    run(t, b) {
      put(`${b.lower}/old`, 'old')
      setTimes(`${b.lower}/old`, LONG_AGO)
      b.mount()
      const expected = -300_000_000n * 1_000_000_000n + 7n
      t.same(b.list(b.m), ['old'], 'such a file can be listed')
      t.equal(b.stat(`${b.m}/old`).mtime, expected)
      fs.chmodSync(`${b.m}/old`, 0o600)
      t.equal(b.stat(`${b.m}/old`).mtime, expected, 'after copy-up')
      put(`${b.m}/new`, 'new')
      t.equal(setTimes(`${b.m}/new`, { sec: -1, nsec: 999_999_999 }), 0)
      t.equal(b.stat(`${b.m}/new`).mtime, -1n, 'set through the mount')
      b.remount()
      t.equal(b.stat(`${b.m}/new`).mtime, -1n)
      t.equal(b.stat(`${b.m}/old`).mtime, expected)
    },
  },
  {
    name: 'atime and mtime are independent',
    run(t, b) {
      put(`${b.lower}/f`, 'f')
      b.mount()
      const atime = { sec: 1_111_111_111, nsec: 111_111_111 }
      const mtime = { sec: 1_222_222_222, nsec: 222_222_222 }
      t.equal(sys.utimensat(sys.AT_FDCWD, `${b.m}/f`, atime, mtime, 0), 0)
      const stat = b.stat(`${b.m}/f`)
      t.equal(stat.atime, 1_111_111_111_111_111_111n)
      t.equal(stat.mtime, 1_222_222_222_222_222_222n)
    },
  },
  {
    name: 'directories full of whiteouts can be removed repeatedly, across remounts',
    run(t, b) {
      for (const name of ['a', 'b', 'c']) {
        fs.mkdirSync(`${b.lower}/${name}/sub`, { recursive: true })
        put(`${b.lower}/${name}/f`, 'f')
        put(`${b.lower}/${name}/sub/f`, 'f')
      }
      b.mount()
      for (const name of ['a', 'b', 'c']) {
        fs.unlinkSync(`${b.m}/${name}/sub/f`)
        t.equal(sys.unlinkat(sys.AT_FDCWD, `${b.m}/${name}`, sys.AT_REMOVEDIR), ENOTEMPTY)
        fs.rmdirSync(`${b.m}/${name}/sub`)
        fs.unlinkSync(`${b.m}/${name}/f`)
        fs.rmdirSync(`${b.m}/${name}`)
        fs.mkdirSync(`${b.m}/${name}`)
        fs.rmdirSync(`${b.m}/${name}`)
        b.remount()
      }
      t.same(b.list(b.m), [])
    },
  },
  {
    name: 'FIFOs, devices, sockets and symlinks are copied up as themselves',
    run(t, b) {
      sys.mknodat(sys.AT_FDCWD, `${b.lower}/fifo`, S.IFIFO | 0o644, 0, 0)
      sys.mknodat(sys.AT_FDCWD, `${b.lower}/socket`, S.IFSOCK | 0o644, 0, 0)
      sys.mknodat(sys.AT_FDCWD, `${b.lower}/char`, S.IFCHR | 0o644, 1, 5)
      sys.mknodat(sys.AT_FDCWD, `${b.lower}/block`, S.IFBLK | 0o644, 250, 70_000)
      fs.symlinkSync('fifo', `${b.lower}/link`)
      b.mount()
      for (const name of ['fifo', 'socket', 'char', 'block', 'link']) {
        const before = b.stat(`${b.m}/${name}`)
        t.equal(
          sys.fchownat(sys.AT_FDCWD, `${b.m}/${name}`, 1000, 1000, sys.AT_SYMLINK_NOFOLLOW),
          0,
        )
        for (const at of [`${b.m}/${name}`, `${b.upper}/${name}`]) {
          const now = b.stat(at)
          t.equal(now.mode, before.mode, `${name}: type and mode`)
          t.equal(now.rdev, before.rdev, `${name}: device`)
          t.equal(now.uid, 1000)
        }
      }
      t.equal(fs.readlinkSync(`${b.upper}/link`), 'fifo')
    },
  },
  {
    name: 'a name beginning with .wh. hides nothing',
    run(t, b) {
      put(`${b.lower}/foo`, 'foo')
      fs.mkdirSync(`${b.lower}/d`)
      put(`${b.lower}/d/foo`, 'foo')
      put(`${b.lower}/bar`, 'bar')
      b.mount()
      const made = sys.open(`${b.m}/.wh.foo`, O.CREAT | O.WRONLY, 0o644)
      if (made >= 0) sys.close(made)
      t.ok(made >= 0, 'created')
      const at = sys.AT_FDCWD
      t.equal(sys.mkdirat(at, `${b.m}/d/.wh..wh..opq`, 0o755), 0)
      t.equal(sys.renameat2(at, `${b.m}/bar`, at, `${b.m}/d/.wh.foo`, 0), 0)
      t.equal(sys.symlinkat('x', at, `${b.m}/d/.wh.x`), 0)
      t.equal(sys.linkat(at, `${b.m}/foo`, at, `${b.m}/d/.wh.y`, 0), 0)
      for (const when of ['at once', 'after a remount']) {
        t.equal(text(`${b.m}/foo`), 'foo', when)
        t.equal(text(`${b.m}/d/foo`), 'foo', when)
        t.ok(b.list(b.m).includes('foo'), when)
        t.ok(b.list(b.m).includes('.wh.foo'), when)
        t.same(b.list(`${b.m}/d`), ['.wh..wh..opq', '.wh.foo', '.wh.x', '.wh.y', 'foo'], when)
        b.remount()
      }
    },
  },
  {
    name: 'holes stay holes over copy-up',
    run(t, b) {
      const fd = b.open(`${b.lower}/sparse`, O.CREAT | O.RDWR)
      sys.pwrite(fd, Buffer.from('head'), 0)
      sys.pwrite(fd, Buffer.from('middle'), 50 << 20)
      sys.ftruncate(fd, 100 << 20)
      sys.close(fd)
      b.mount()
      fs.chmodSync(`${b.m}/sparse`, 0o600)
      const copy = b.stat(`${b.upper}/sparse`)
      t.equal(copy.size, 100 << 20)
      t.ok(copy.blocks < 8192, `it takes ${copy.blocks} blocks`)
      const now = b.open(`${b.m}/sparse`, O.RDONLY)
      t.equal(read(now, 6, 50 << 20), 'middle')
      t.equal(sys.lseek(now, 1 << 20, sys.SEEK.DATA), 50 << 20)
      sys.close(now)
    },
  },
  {
    name: 'O_APPEND appends after any other writer',
    run(t, b) {
      put(`${b.lower}/log`, 'one\n')
      b.mount()
      const first = b.open(`${b.m}/log`, O.WRONLY | O.APPEND)
      const second = b.open(`${b.m}/log`, O.RDWR | O.APPEND)
      sys.write(first, Buffer.from('two\n'))
      sys.write(second, Buffer.from('three\n'))
      sys.write(first, Buffer.from('four\n'))
      t.equal(sys.pwrite(first, Buffer.from('five\n'), 0), 5, 'pwrite appends too')
      t.equal(read(second), 'one\ntwo\nthree\nfour\nfive\n')
      sys.close(first)
      sys.close(second)
      b.remount()
      t.equal(text(`${b.m}/log`), 'one\ntwo\nthree\nfour\nfive\n')
      t.equal(text(`${b.lower}/log`), 'one\n')
    },
  },
  {
    name: 'a file whose owner changes while it is written keeps its end',
    run(t, b) {
      put(`${b.lower}/f`, 'x'.repeat(5000))
      b.mount()
      for (const path of [`${b.m}/f`, `${b.m}/new`]) {
        const fd = b.open(path, O.CREAT | O.RDWR)
        sys.pwrite(fd, Buffer.from('a'.repeat(10_001)), 0)
        fs.chownSync(path, 1000, 1000)
        sys.pwrite(fd, Buffer.from('b'.repeat(5003)), 10_001)
        fs.chmodSync(path, 0o400)
        t.equal(sys.fchownat(fd, '', 2000, 2000, sys.AT_EMPTY_PATH), 0)
        sys.pwrite(fd, Buffer.from('c'), 15_004)
        sys.close(fd)
        t.equal(b.stat(path).size, 15_005)
      }
      b.remount()
      for (const name of ['f', 'new'])
        t.equal(text(`${b.m}/${name}`), `${'a'.repeat(10_001)}${'b'.repeat(5003)}c`, name)
    },
  },
  {
    name: 'RENAME_EXCHANGE exchanges names across layers',
    run(t, b) {
      put(`${b.lower}/low`, 'low')
      put(`${b.lower}/other`, 'other')
      fs.mkdirSync(`${b.lower}/dir`)
      b.mount()
      put(`${b.m}/up`, 'up')
      const at = sys.AT_FDCWD
      const exchange = (a: string, c: string): number =>
        sys.renameat2(at, `${b.m}/${a}`, at, `${b.m}/${c}`, sys.RENAME.EXCHANGE)
      t.equal(exchange('up', 'low'), 0)
      t.equal(text(`${b.m}/up`), 'low')
      t.equal(text(`${b.m}/low`), 'up')
      t.equal(exchange('up', 'other'), 0)
      t.equal(text(`${b.m}/up`), 'other')
      t.equal(text(`${b.m}/other`), 'low')
      t.equal(exchange('up', 'nothing'), ENOENT)
      t.equal(exchange('up', 'dir'), EXDEV, 'a lower directory cannot be moved without redirects')
      t.equal(text(`${b.m}/up`), 'other', 'and nothing is lost')
      const renameTo = (flags: number): number =>
        sys.renameat2(at, `${b.m}/up`, at, `${b.m}/low`, flags)
      t.equal(renameTo(sys.RENAME.NOREPLACE), EEXIST)
      t.equal(renameTo(sys.RENAME.WHITEOUT), EINVAL)
      t.equal(renameTo(8), EINVAL)
      b.remount()
      t.equal(text(`${b.m}/up`) + text(`${b.m}/low`) + text(`${b.m}/other`), 'otheruplow')
    },
  },
  {
    name: 'a name that was exchanged over a lower name and then moved uncovers nothing',
    run(t, b) {
      for (const name of ['a', 'b', 'c', 'd']) put(`${b.lower}/${name}`, name)
      fs.linkSync(`${b.lower}/a`, `${b.lower}/a2`)
      b.mount()
      const at = sys.AT_FDCWD
      const exchange = (x: string, y: string): number =>
        sys.renameat2(at, `${b.m}/${x}`, at, `${b.m}/${y}`, sys.RENAME.EXCHANGE)
      fs.mkdirSync(`${b.m}/dir`)
      put(`${b.m}/file`, 'file')
      t.equal(exchange('dir', 'a'), 0)
      fs.renameSync(`${b.m}/a`, `${b.m}/moved`)
      t.equal(exchange('file', 'b'), 0)
      fs.unlinkSync(`${b.m}/b`)
      fs.mkdirSync(`${b.m}/dir2`)
      t.equal(exchange('dir2', 'c'), 0)
      fs.rmdirSync(`${b.m}/c`)
      t.equal(exchange('d', 'dir'), 0)
      fs.renameSync(`${b.m}/d`, `${b.m}/d2`)
      for (const when of ['at once', 'after a remount']) {
        t.same(b.list(b.m), ['a2', 'd2', 'dir', 'dir2', 'file', 'moved'], when)
        for (const name of ['a', 'b', 'c', 'd'])
          t.equal(sys.lstat(at, `${b.m}/${name}`), ENOENT, `${name} ${when}`)
        b.remount()
      }
    },
  },
  {
    name: 'the server does not follow a symlink into its own mount',
    run(t, b) {
      fs.symlinkSync(`${b.m}/target`, `${b.lower}/link`)
      put(`${b.lower}/target`, 'target', 0o640)
      b.mount()
      fs.symlinkSync(`${b.m}/target`, `${b.m}/link2`)
      for (const link of ['link', 'link2']) {
        const path = `${b.m}/${link}`
        inTime(t, 'chown -h', 'chown', '-h', '1000:1000', path)
        inTime(t, 'touch -h', 'touch', '-h', '-d', '@5', path)
        const set = inTime(t, 'setfattr -h', 'setfattr', '-h', '-n', 'trusted.a', '-v', 'x', path)
        t.equal(set.status, 0, set.stderr)
        inTime(t, 'getfattr -h', 'getfattr', '-h', '-d', '-m', '-', path)
        inTime(t, 'setfattr -h -x', 'setfattr', '-h', '-x', 'trusted.a', path)
        t.equal(b.stat(path).uid, 1000)
        t.equal(b.stat(path).mtime, 5_000_000_000n)
        t.equal(text(path), 'target', 'following it leads there')
      }
      t.equal(b.stat(`${b.m}/target`).uid, 0)
    },
  },
  {
    name: 'listing and lookup agree: opaque directories, whiteouts, files over directories',
    lowers: 3,
    run(t, b) {
      const [top, middle, bottom] = b.lowers as [string, string, string]
      for (const name of ['opaque', 'marked', 'plain', 'replaced'])
        for (const layer of [top, middle, bottom]) {
          fs.mkdirSync(`${layer}/${name}`)
          put(`${layer}/${name}/in-${layer.at(-1)}`, 'x')
        }
      sys.setxattr(
        { path: `${middle}/opaque`, follow: false },
        'trusted.overlay.opaque',
        Buffer.from('y'),
        0,
      )
      whiteout(`${top}/plain/in-2`)
      whiteout(`${middle}/plain/in-2`)
      sys.setxattr(
        { path: `${top}/marked`, follow: false },
        'trusted.overlay.opaque',
        Buffer.from('x'),
        0,
      )
      put(`${top}/marked/in-1`, '')
      sys.setxattr(
        { path: `${top}/marked/in-1`, follow: false },
        'trusted.overlay.whiteout',
        Buffer.alloc(0),
        0,
      )
      fs.rmSync(`${middle}/replaced`, { recursive: true })
      put(`${middle}/replaced`, 'a file')
      b.mount()
      const expected: Record<string, string[]> = {
        opaque: ['in-0', 'in-1'],
        marked: ['in-0', 'in-2'],
        plain: ['in-0', 'in-1'],
        replaced: ['in-0'],
      }
      for (const [name, names] of Object.entries(expected))
        for (const when of ['at once', 'copied up', 'after a remount']) {
          if (when === 'copied up') fs.utimesSync(`${b.m}/${name}`, 5, 5)
          if (when === 'after a remount') b.remount()
          t.same(b.list(`${b.m}/${name}`), names, `${name}, listed ${when}`)
          for (const file of ['in-0', 'in-1', 'in-2'])
            t.equal(
              fs.existsSync(`${b.m}/${name}/${file}`),
              names.includes(file),
              `${name}/${file}, looked up ${when}`,
            )
        }
    },
  },
  {
    name: 'listing and lookup agree: .wh. names of container layers',
    lowers: 2,
    notKernel: 'they are ordinary names there',
    run(t, b) {
      const [top, bottom] = b.lowers as [string, string]
      fs.mkdirSync(`${bottom}/d/sub`, { recursive: true })
      for (const name of ['gone', 'kept', 'd/gone', 'd/sub/x']) put(`${bottom}/${name}`, 'x')
      fs.mkdirSync(`${top}/d`)
      put(`${top}/.wh.gone`, '')
      put(`${top}/d/.wh..wh..opq`, '')
      put(`${top}/d/new`, 'new')
      b.mount()
      for (const when of ['at once', 'after a remount']) {
        t.same(b.list(b.m), ['d', 'kept'], when)
        t.same(b.list(`${b.m}/d`), ['new'], when)
        for (const name of ['gone', '.wh.gone', 'd/gone', 'd/sub', 'd/.wh..wh..opq'])
          t.equal(sys.lstat(sys.AT_FDCWD, `${b.m}/${name}`), ENOENT, `${name} ${when}`)
        put(`${b.m}/gone`, 'new')
        t.equal(text(`${b.m}/gone`), 'new', when)
        fs.unlinkSync(`${b.m}/gone`)
        b.remount()
      }
    },
  },
  {
    name: 'layers can be unmounted directly after the union',
    run(t, b) {
      const tmpfs = (path: string): void => {
        t.equal(sys.mount('none', path, 'tmpfs', 0, 'size=4m'), 0)
      }
      tmpfs(b.lower)
      fs.mkdirSync(`${b.lower}/d`)
      put(`${b.lower}/d/f`, 'f')
      b.mount()
      t.equal(text(`${b.m}/d/f`), 'f')
      fs.appendFileSync(`${b.m}/d/f`, 'g')
      t.same(b.list(`${b.m}/d`), ['f'])
      t.equal(sys.umount(b.m), 0)
      let result = sys.umount(b.lower)
      for (let tries = 0; result !== 0 && tries < 20; tries++) {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50)
        result = sys.umount(b.lower)
      }
      t.equal(result, 0, 'no file is kept open')
    },
  },
  {
    name: 'trees deeper than PATH_MAX',
    run(t, b) {
      const long = 'n'.repeat(255)
      const deep = (root: string, depth: number): number => {
        let dir = b.open(root, O.RDONLY | O.DIRECTORY)
        for (let i = 0; i < depth; i++) {
          const made = sys.mkdirat(dir, long, 0o755)
          if (made < 0 && made !== EEXIST) throw new Error(`mkdir at ${i}: errno ${-made}`)
          const next = sys.openat(dir, long, O.RDONLY | O.DIRECTORY)
          if (next < 0) throw new Error(`open at ${i}: errno ${-next}`)
          sys.close(dir)
          dir = next
        }
        return dir
      }
      const lower = deep(b.lower, 20)
      sys.close(sys.openat(lower, 'f', O.CREAT | O.WRONLY, 0o644))
      sys.close(lower)
      b.mount()
      const dir = deep(b.m, 24)
      sys.close(dir)
      const twenty = deep(b.m, 20)
      t.equal(sys.fchmodat(twenty, 'f', 0o600), 0, 'copy-up far down')
      const stat = sys.lstat(twenty, 'f')
      t.equal(typeof stat === 'number' ? stat : stat.mode & 0o777, 0o600)
      t.equal(sys.mkdirat(twenty, 'made', 0o755), 0)
      t.equal(sys.renameat2(twenty, 'made', twenty, 'moved', 0), 0)
      sys.close(twenty)
      const removed = inTime(t, 'rm -r', 'rm', '-r', `${b.m}/${long}`)
      t.equal(removed.status, 0, removed.stderr.slice(0, 300))
      t.same(b.list(b.m), [])
    },
  },
  {
    name: 'an open file stays usable without a name',
    run(t, b) {
      put(`${b.lower}/low`, 'low')
      b.mount()
      put(`${b.m}/up`, 'up')
      for (const name of ['low', 'up']) {
        const fd = b.open(`${b.m}/${name}`, O.RDWR)
        fs.unlinkSync(`${b.m}/${name}`)
        t.equal(b.fstat(fd).nlink, 0, `${name}: no links`)
        t.equal(read(fd), name)
        t.equal(sys.fchmod(fd, 0o600), 0)
        t.equal(sys.fchownat(fd, '', 1000, 1000, sys.AT_EMPTY_PATH), 0)
        t.equal(sys.futimens(fd, LONG_AGO, LONG_AGO), 0)
        t.equal(sys.setxattr(fd, 'user.a', Buffer.from('b'), 0), 0)
        t.same(sys.getxattr(fd, 'user.a'), Buffer.from('b'))
        t.equal(sys.ftruncate(fd, 1), 0)
        t.equal(sys.pwrite(fd, Buffer.from('more'), 1), 4)
        t.equal(read(fd), `${name[0]}more`)
        t.equal(sys.fsync(fd), 0)
        const stat = b.fstat(fd)
        t.equal(stat.mode & 0o777, 0o600)
        t.equal(stat.uid, 1000)
        t.equal(sys.close(fd), 0)
      }
      t.same(b.list(b.m), [])
    },
  },
  {
    name: 'link counts of directories that were removed or replaced while open',
    run(t, b) {
      fs.mkdirSync(`${b.lower}/low`)
      b.mount()
      fs.mkdirSync(`${b.m}/up`)
      fs.mkdirSync(`${b.m}/source`)
      fs.mkdirSync(`${b.m}/target`)
      for (const name of ['low', 'up']) {
        const fd = b.open(`${b.m}/${name}`, O.RDONLY | O.DIRECTORY)
        fs.rmdirSync(`${b.m}/${name}`)
        // Kernel overlayfs still reports the link count of the lower directory.
        if (name === 'up' || !b.kind.kernel)
          t.ok(b.fstat(fd).nlink < 2, `${name}: ${b.fstat(fd).nlink}`)
        t.equal(
          sys.openat(fd, 'x', O.CREAT | O.WRONLY, 0o644),
          ENOENT,
          'nothing can be created in it',
        )
        sys.close(fd)
      }
      const fd = b.open(`${b.m}/target`, O.RDONLY | O.DIRECTORY)
      fs.renameSync(`${b.m}/source`, `${b.m}/target`)
      t.ok(b.fstat(fd).nlink < 2, `replaced: ${b.fstat(fd).nlink}`)
      sys.close(fd)
    },
  },
  {
    name: 'd_ino is st_ino, before and after copy-up and a remount',
    run(t, b) {
      fs.mkdirSync(`${b.lower}/d/sub`, { recursive: true })
      for (const name of ['a', 'b', 'c']) put(`${b.lower}/d/${name}`, name)
      fs.linkSync(`${b.lower}/d/a`, `${b.lower}/d/hard`)
      b.mount()
      const numbers = (): Record<string, bigint> => {
        const fd = b.open(`${b.m}/d`, O.RDONLY | O.DIRECTORY)
        const entries = sys.allDirents(fd)
        sys.close(fd)
        if (typeof entries === 'number') throw new Error(`errno ${-entries}`)
        const result: Record<string, bigint> = {}
        for (const entry of entries) {
          if (entry.name === '..') continue
          t.equal(b.stat(`${b.m}/d/${entry.name}`).ino, entry.ino, entry.name)
          result[entry.name] = entry.ino
        }
        return result
      }
      const before = numbers()
      fs.chmodSync(`${b.m}/d/a`, 0o600)
      fs.appendFileSync(`${b.m}/d/b`, 'x')
      fs.chownSync(`${b.m}/d/sub`, 1, 1)
      t.same(numbers(), before, 'copied up')
      b.remount()
      t.same(numbers(), before, 'after a remount')
    },
  },
  {
    name: 'chown -R changes no time of a directory',
    run(t, b) {
      fs.mkdirSync(`${b.lower}/d/sub`, { recursive: true })
      put(`${b.lower}/d/sub/f`, 'f')
      put(`${b.lower}/d/f`, 'f')
      for (const name of ['d/sub', 'd', '.']) setTimes(`${b.lower}/${name}`, LONG_AGO)
      setTimes(b.upper, LONG_AGO)
      b.mount()
      inTime(t, 'chown -R', 'chown', '-R', '1000:1000', `${b.m}/d`)
      const expected = -300_000_000n * 1_000_000_000n + 7n
      for (const name of ['.', 'd', 'd/sub'])
        t.equal(b.stat(`${b.m}/${name}`).mtime, expected, name)
    },
  },
  {
    name: 'names of 255 bytes, of 256 bytes, and with invalid UTF-8',
    run(t, b) {
      b.mount()
      const at = sys.open(b.m, O.RDONLY | O.DIRECTORY)
      const names = ['n'.repeat(255), '\xff\xfe\x80', 'a\nb', '\x01']
      for (const name of names) sys.close(sys.openat(at, name, O.CREAT | O.WRONLY, 0o644))
      t.same(b.list(b.m), names.toSorted())
      const tooLong = 'n'.repeat(256)
      t.equal(sys.openat(at, tooLong, O.CREAT | O.WRONLY, 0o644), ENAMETOOLONG)
      t.equal(sys.lstat(at, tooLong), ENAMETOOLONG)
      t.equal(sys.mkdirat(at, tooLong, 0o755), ENAMETOOLONG)
      t.equal(sys.renameat2(at, 'a\nb', at, tooLong, 0), ENAMETOOLONG)
      sys.close(at)
      const statfs = sys.statfs(b.m)
      t.equal(typeof statfs === 'number' ? statfs : statfs.namelen, 255)
      b.remount()
      t.same(b.list(b.m), names.toSorted())
    },
  },
  {
    name: 'a default ACL applies to new files in the directory',
    run(t, b) {
      fs.mkdirSync(`${b.lower}/d`)
      const acl = Buffer.from(
        '02000000' +
          '01000700ffffffff' +
          '02000700e8030000' +
          '04000500ffffffff' +
          '10000700ffffffff' +
          '20000000ffffffff',
        'hex',
      )
      t.equal(
        sys.setxattr({ path: `${b.lower}/d`, follow: false }, 'system.posix_acl_default', acl, 0),
        0,
      )
      b.mount()
      sys.umask(0o077)
      fs.mkdirSync(`${b.m}/d/sub`)
      sys.close(b.open(`${b.m}/d/f`, O.CREAT | O.WRONLY, 0o666))
      sys.umask(0o022)
      t.same(sys.getxattr({ path: `${b.m}/d/sub`, follow: false }, 'system.posix_acl_default'), acl)
      t.equal(b.stat(`${b.m}/d/sub`).mode & 0o777, 0o770, 'the umask has no effect')
      t.equal(b.stat(`${b.m}/d/f`).mode & 0o777, 0o660)
      const caller = { uid: 1000, gid: 1000, groups: [1000] }
      fs.chmodSync(b.top, 0o755)
      const fd = sys.withCredentials(caller, () => sys.open(`${b.m}/d/f`, O.RDWR))
      t.ok(fd >= 0, 'the named user may write')
      sys.close(fd)
    },
  },
  {
    name: 'inode flags of files can be read',
    run(t, b) {
      put(`${b.lower}/low`, 'low')
      b.mount()
      put(`${b.m}/up`, 'up')
      for (const name of ['low', 'up', '.']) {
        const fd = b.open(`${b.m}/${name}`, O.RDONLY)
        t.ok(sys.getFlags(fd) >= 0, name)
        sys.close(fd)
      }
    },
  },
  {
    name: 'a lower layer below the mountpoint does not hang the mount',
    run(t, b) {
      const inside = `${b.m}/inside`
      fs.mkdirSync(inside)
      put(`${inside}/f`, 'f')
      b.lowers[0] = inside
      b.mount()
      t.equal(inTime(t, 'cat', 'cat', `${b.m}/f`).stdout, 'f')
      t.equal(inTime(t, 'chmod', 'chmod', '600', `${b.m}/f`).status, 0)
    },
  },
  {
    name: 'an empty directory over a lower directory of the same name stays the same in a second layer',
    lowers: 2,
    run(t, b) {
      // A directory that was removed and recreated, in a committed layer: opaque, with or without
      // entries.
      const [top, bottom] = b.lowers as [string, string]
      fs.mkdirSync(`${bottom}/d/old`, { recursive: true })
      fs.mkdirSync(`${top}/d`)
      sys.setxattr(
        { path: `${top}/d`, follow: false },
        'trusted.overlay.opaque',
        Buffer.from('y'),
        0,
      )
      put(`${top}/d/new`, 'new')
      b.mount()
      fs.unlinkSync(`${b.m}/d/new`)
      t.equal(sys.unlinkat(sys.AT_FDCWD, `${b.m}/d`, sys.AT_REMOVEDIR), 0, 'nothing is in it')
      t.equal(sys.mkdirat(sys.AT_FDCWD, `${b.m}/d`, 0o755), 0)
      t.same([...readTree(b.m).nodes.keys()], ['.', 'd'])
    },
  },
  {
    name: 'a metacopy file keeps capability, set-id bits and times when its data is copied up',
    run(t, b) {
      put(`${b.lower}/f`, 'lower data')
      put(`${b.upper}/f`, '')
      fs.truncateSync(`${b.upper}/f`, 10)
      fs.chmodSync(`${b.upper}/f`, 0o6755)
      const upper = { path: `${b.upper}/f`, follow: false }
      const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex')
      sys.setxattr(upper, 'trusted.overlay.metacopy', Buffer.alloc(0), 0)
      sys.setxattr(upper, 'security.capability', capability, 0)
      setTimes(`${b.upper}/f`, LONG_AGO)
      b.mount({ metacopy: true })
      const before = b.stat(`${b.m}/f`)
      sys.close(b.open(`${b.m}/f`, O.RDWR))
      t.same(
        sys.getxattr({ path: `${b.m}/f`, follow: false }, 'security.capability'),
        capability,
        'it has its capability',
      )
      const after = b.stat(`${b.m}/f`)
      t.equal(after.mode, S.IFREG | 0o6755)
      if (!b.kind.kernel) t.equal(after.mtime, before.mtime, 'nothing was written')
      b.umount()
      t.equal(text(`${b.upper}/f`), 'lower data', 'the data is in the upper layer')
    },
  },
  {
    name: 'an immutable file with a capability can be written through a descriptor opened before',
    run(t, b) {
      put(`${b.lower}/f`, 'lower data')
      b.mount()
      const fd = b.open(`${b.m}/f`, O.RDWR)
      const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex')
      t.equal(sys.setxattr(fd, 'security.capability', capability, 0), 0)
      const flags = sys.getFlags(fd)
      t.equal(sys.setFlags(fd, flags | FS_IMMUTABLE_FL), 0)
      t.equal(sys.pwrite(fd, Buffer.from('NEW'), 0), 3)
      t.equal(sys.getxattr(fd, 'security.capability'), ENODATA, 'its capability is gone')
      t.equal(read(fd), 'NEWer data')
      sys.close(fd)
      const reader = b.open(`${b.m}/f`, O.RDONLY)
      t.equal(sys.removexattr(reader, 'security.capability'), EPERM, 'else it stays')
      t.equal(sys.setFlags(reader, flags), 0)
      sys.close(reader)
    },
  },
  {
    name: "a file can be changed although another name of it is in a directory that can't be copied up",
    run(t, b) {
      fs.mkdirSync(`${b.lower}/a`)
      fs.mkdirSync(`${b.lower}/c`)
      put(`${b.lower}/a/x`, 'lower data')
      fs.linkSync(`${b.lower}/a/x`, `${b.lower}/c/x`)
      const invalid = { path: `${b.lower}/a`, follow: false }
      t.equal(sys.setxattr(invalid, 'security.capability', Buffer.alloc(0), 0), 0)
      b.mount()
      t.equal(fs.statSync(`${b.m}/a/x`).nlink, 2)
      fs.writeFileSync(`${b.m}/c/x`, 'new')
      t.equal(text(`${b.m}/a/x`), 'new')
      t.equal(text(`${b.upper}/c/x`), 'new')
      t.notOk(fs.existsSync(`${b.upper}/a`))
    },
  },
  {
    name: 'a write through a mapping does not remove a capability',
    run(t, b) {
      b.mount()
      const fd = b.open(`${b.m}/f`, O.RDWR | O.CREAT)
      const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex')
      t.equal(sys.pwrite(fd, Buffer.from('written'), 0), 7)
      t.equal(sys.setxattr(fd, 'security.capability', capability, 0), 0)
      const { READ, WRITE } = sys.PROT
      sys.withMapping(fd, 7, READ | WRITE, sys.MAP.SHARED, 0, writeMapped, 7)
      sys.close(fd)
      t.equal(text(`${b.upper}/f`), 'MAPPEDn')
      const kept = { path: `${b.upper}/f`, follow: false }
      t.same(sys.getxattr(kept, 'security.capability'), capability)
      const again = b.open(`${b.m}/f`, O.RDWR)
      t.equal(sys.pwrite(again, Buffer.from('w'), 0), 1)
      sys.close(again)
      t.equal(sys.getxattr(kept, 'security.capability'), ENODATA, 'a write does')
    },
  },
  {
    name: 'an empty capability is not removed by a change of data',
    run(t, b) {
      b.mount()
      for (const [by, mode] of [
        ['root', 0o755],
        ['somebody', 0o2755],
      ] as const) {
        const path = `${b.m}/${by}`
        const fd = b.open(path, O.RDWR | O.CREAT)
        t.equal(sys.setxattr(fd, 'security.capability', Buffer.alloc(0), 0), 0)
        fs.chmodSync(path, mode)
        sys.close(fd)
        // The server's memory of it ends with the mount.
        b.remount()
        const again = b.open(path, O.RDWR)
        const ids = by === 'root' ? 0 : 1000
        sys.withCredentials({ uid: ids, gid: ids, groups: [ids] }, () => {
          t.equal(sys.pwrite(again, Buffer.from('written'), 0), 7, by)
          t.equal(sys.fallocate(again, 0, 0, 9000), 0, by)
          t.equal(sys.ftruncate(again, 5000), 0, by)
        })
        t.equal(sys.fsync(again), 0, by)
        t.equal(sys.getxattr(again, 'security.capability'), EINVAL, by)
        sys.close(again)
        t.equal(sys.removexattr({ path, follow: false }, 'security.capability'), 0, by)
        t.equal(b.stat(path).mode & 0o7777, 0o755, by)
      }
    },
  },
  {
    name: 'an append-only file can be touched, and gets no other time',
    run(t, b) {
      put(`${b.lower}/f`, 'lower data')
      b.mount()
      const fd = b.open(`${b.m}/f`, O.RDONLY)
      const flags = sys.getFlags(fd)
      t.equal(sys.setFlags(fd, flags | FS_APPEND_FL), 0)
      const NOW = { sec: 0, nsec: 1_073_741_823 }
      const times = (atime: sys.Time, mtime: sys.Time): number =>
        sys.utimensat(sys.AT_FDCWD, `${b.m}/f`, atime, mtime, 0)
      const before = b.fstat(fd).mtime
      t.equal(times(LONG_AGO, LONG_AGO), EPERM)
      t.equal(times(NOW, LONG_AGO), EPERM)
      t.equal(times(LONG_AGO, NOW), EPERM)
      t.equal(b.fstat(fd).mtime, before)
      t.equal(times(NOW, NOW), 0)
      t.not(b.fstat(fd).mtime, before)
      t.equal(sys.setFlags(fd, flags), 0)
      sys.close(fd)
    },
  },
  {
    name: 'data written to an open file without a name is visible under its remaining name',
    run(t, b) {
      b.mount()
      put(`${b.m}/left`, '')
      fs.linkSync(`${b.m}/left`, `${b.m}/gone`)
      // The union can find the file only by one of its names.
      fs.writeFileSync('/proc/sys/vm/drop_caches', '2')
      const fd = b.open(`${b.m}/gone`, O.RDWR)
      fs.unlinkSync(`${b.m}/gone`)
      t.equal(sys.pwrite(fd, Buffer.from('data'), 0), 4)
      t.equal(b.stat(`${b.m}/left`).ino, b.fstat(fd).ino)
      t.equal(b.stat(`${b.m}/left`).size, 4)
      t.equal(text(`${b.m}/left`), 'data')
      sys.close(fd)
    },
  },
  {
    name: 'a continued listing loses no name after removals and other listings',
    run(t, b) {
      const names = Array.from({ length: 500 }, (_, i) => `${i}-${'n'.repeat(60)}`)
      fs.mkdirSync(`${b.lower}/d`)
      for (const name of names) put(`${b.lower}/d/${name}`, '')
      b.mount()
      const d = `${b.m}/d`
      t.equal(fs.readdirSync(d).length, 500, 'the kernel has it all')
      const fd = b.open(d, O.RDONLY | O.DIRECTORY)
      const first = sys.getdents(fd, 4096)
      if (typeof first === 'number') throw new Error(`getdents: ${first}`)
      const seen = first.map(entry => entry.name).filter(name => !name.startsWith('.'))
      for (const name of seen) fs.unlinkSync(`${d}/${name}`)
      t.equal(fs.readdirSync(d).length, 500 - seen.length, 'another user lists it')
      const rest = sys.allDirents(fd)
      if (typeof rest === 'number') throw new Error(`getdents: ${rest}`)
      const all = new Set([...seen, ...rest.map(entry => entry.name)])
      t.strictSame(
        names.filter(name => !all.has(name)),
        [],
      )
      sys.close(fd)
      b.umount()
    },
  },
  {
    name: 'a lower file that is removed while it is open is not copied up, whatever its xattrs',
    run(t, b) {
      fs.mkdirSync(`${b.lower}/d`)
      for (const name of ['d/f', 'd/g']) put(`${b.lower}/${name}`, 'lower data')
      const invalid = { path: `${b.lower}/d/f`, follow: false }
      // An empty value is invalid: reading it fails, and so does copying it.
      fs.chmodSync(`${b.lower}/d/f`, 0o4755)
      t.equal(sys.setxattr(invalid, 'security.capability', Buffer.alloc(0), 0), 0)
      b.mount()
      const directory = b.open(b.m, O.RDONLY | O.DIRECTORY)
      for (const name of ['f', 'g']) {
        const fd = b.open(`${b.m}/d/${name}`, O.RDONLY)
        t.equal(b.stat(`${b.m}/d/${name}`).nlink, 1)
        fs.unlinkSync(`${b.m}/d/${name}`)
        t.equal(sys.syncfs(directory), 0)
        t.equal(read(fd), 'lower data')
        sys.close(fd)
      }
      t.equal(sys.syncfs(directory), 0)
      sys.close(directory)
      b.umount()
    },
  },
  {
    name: "a cached listing has no inode number of a copy whose origin can't be found again",
    run(t, b) {
      // ramfs has no file handles, and an ordinary user may not open files by handle.
      t.equal(sys.mount('ramfs', b.lower, 'ramfs', 0, ''), 0)
      try {
        fs.mkdirSync(`${b.lower}/d`)
        put(`${b.lower}/d/f`, 'lower data')
        b.mount()
        const listed = (): bigint | undefined => {
          const fd = b.open(`${b.m}/d`, O.RDONLY | O.DIRECTORY)
          const entries = sys.allDirents(fd)
          sys.close(fd)
          return typeof entries === 'number' ? undefined : entries.find(e => e.name === 'f')?.ino
        }
        fs.chmodSync(`${b.m}/d/f`, 0o600)
        const directory = b.open(`${b.m}/d`, O.RDONLY | O.DIRECTORY)
        listed()
        listed()
        fs.writeFileSync('/proc/sys/vm/drop_caches', '2')
        // FORGET has no reply, so the test waits for its effect.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100)
        t.equal(listed(), b.stat(`${b.m}/d/f`).ino)
        t.equal(listed(), b.stat(`${b.m}/d/f`).ino, 'also later')
        sys.close(directory)
        b.umount()
      } finally {
        sys.umount(b.lower, sys.MNT.DETACH)
      }
    },
  },
  {
    name: 'a name whose lookup fails is listed, with its inode number and type',
    run(t, b) {
      fs.mkdirSync(`${b.lower}/d`)
      put(`${b.lower}/d/l`, 'l')
      for (const layer of [b.upper, b.lower]) {
        for (const directory of ['d/broken', 'only/broken'])
          fs.mkdirSync(`${layer}/${directory}`, { recursive: true })
        for (const directory of ['d', 'only']) {
          const redirect = { path: `${layer}/${directory}/broken`, follow: false }
          sys.setxattr(redirect, 'trusted.overlay.redirect', Buffer.from('../x'), 0)
          put(`${layer}/${directory}/good`, 'g')
        }
      }
      b.mount()
      for (const directory of ['d', 'only']) {
        const fd = b.open(`${b.m}/${directory}`, O.RDONLY | O.DIRECTORY)
        const entries = sys.allDirents(fd)
        if (typeof entries === 'number') throw new Error(`listing: errno ${-entries}`)
        t.equal(sys.lstat(fd, 'broken'), EINVAL, 'lookup fails')
        sys.close(fd)
        const broken = entries.find(entry => entry.name === 'broken')
        t.equal(broken?.type, 4)
        t.not(broken?.ino ?? 0n, 0n, 'readdir(3) skips inode number 0')
        t.ok(b.list(`${b.m}/${directory}`).includes('broken'))
      }
      b.umount()
    },
  },
]

const runAll = async (t: Test, kind: Kind): Promise<void> => {
  for (const regression of REGRESSIONS) {
    const skip =
      (kind.kernel ? regression.notKernel : undefined) ??
      (kind.mounter.native ? notNative(regression.name) : notNoOpen(kind, regression.name))
    await t.test(regression.name, { skip }, async t => {
      const bench = new Bench(kind, regression.lowers ?? 1)
      try {
        regression.run(t, bench)
      } finally {
        bench.end()
      }
    })
  }
}

for (const kind of KINDS) t.test(kind.name, { skip: skipKind(kind) }, t => runAll(t, kind))

/**
 * A full upper layer: the caller gets ENOSPC, existing files are unchanged, the upper layer and the
 * workdir contain nothing unfinished, and the same call succeeds when there is space.
 */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import t, { type Test } from 'tap'
import { Bench, KINDS, notNoOpen, skipKind, type Kind } from '../helpers/kinds.js'
import * as sys from '../helpers/syscalls.js'

const { O } = sys
const ENOSPC = -28
const MiB = 1 << 20

/** A union with the upper layer and the workdir on a small tmpfs. */
class SmallBench extends Bench {
  constructor(kind: Kind, options: string) {
    super(kind)
    this.disk = `${this.top}/disk`
    fs.mkdirSync(this.disk)
    const result = sys.mount('none', this.disk, 'tmpfs', 0, options)
    if (result < 0) throw new Error(`mount tmpfs: errno ${-result}`)
    this.upperOnDisk = `${this.disk}/upper`
    this.workOnDisk = `${this.disk}/work`
    fs.mkdirSync(this.upperOnDisk)
    fs.mkdirSync(this.workOnDisk)
  }
  readonly disk: string
  readonly upperOnDisk: string
  readonly workOnDisk: string

  override layers() {
    return { lowers: this.lowers, upper: this.upperOnDisk, work: this.workOnDisk }
  }

  override end(): void {
    try {
      if (fs.existsSync(`${this.m}/.`)) this.umount()
    } catch {
      // The mount is gone, or the next attempt unmounts it.
    }
    sys.umount(this.disk, sys.MNT.DETACH)
    super.end()
  }

  /** Fills the file system up to `spare` bytes. */
  fill(spare = 0): void {
    const fd = this.open(`${this.disk}/filler`, O.CREAT | O.WRONLY)
    const block = Buffer.alloc(4096, 1)
    for (let at = 0; sys.pwrite(fd, block, at) === block.length;) at += block.length
    const { size } = this.fstat(fd)
    sys.ftruncate(fd, Math.max(0, size - spare))
    sys.close(fd)
  }

  /** Creates files until no inode is left. */
  fillInodes(): void {
    fs.mkdirSync(`${this.disk}/many`)
    for (let i = 0; ; i++) {
      const fd = sys.open(`${this.disk}/many/${i}`, O.CREAT | O.WRONLY, 0o644)
      if (fd < 0) return
      sys.close(fd)
    }
  }

  makeRoom(): void {
    fs.rmSync(`${this.disk}/filler`, { force: true })
    fs.rmSync(`${this.disk}/many`, { force: true, recursive: true })
  }

  /** The files in the workdir, except the whiteout that the union keeps there to link it. */
  leftInWork(): string[] {
    const work = `${this.workOnDisk}/work`
    if (!fs.existsSync(work)) return []
    return fs.readdirSync(work).filter(name => {
      const stat = this.stat(`${work}/${name}`)
      return (stat.mode & sys.S.IFMT) !== sys.S.IFCHR
    })
  }
}

const text = (path: string): string => fs.readFileSync(path, 'latin1')
const open = (path: string, flags: number): number => sys.open(path, flags, 0o644)

interface Case {
  name: string
  options?: string
  run: (t: Test, b: SmallBench) => void
}

const CASES: Case[] = [
  {
    name: 'write',
    run(t, b) {
      b.mount()
      const fd = b.open(`${b.m}/f`, O.CREAT | O.RDWR)
      t.equal(sys.pwrite(fd, Buffer.from('head'), 0), 4)
      t.equal(sys.fsync(fd), 0)
      b.fill()
      const block = Buffer.alloc(64 * 1024, 2)
      let result = 0
      // With a write-back cache the error may occur when the pages are written.
      for (let i = 0; i < 64 && result >= 0; i++)
        result = sys.pwrite(fd, block, 4096 + i * block.length)
      if (result >= 0) result = sys.fsync(fd)
      t.equal(result, ENOSPC)
      sys.close(fd)
      t.equal(text(`${b.m}/f`).slice(0, 4), 'head', 'earlier data is unchanged')
      b.makeRoom()
      const again = b.open(`${b.m}/f`, O.RDWR | O.TRUNC)
      t.equal(sys.pwrite(again, block, 0), block.length)
      t.equal(sys.fsync(again), 0)
      t.equal(sys.close(again), 0)
      b.remount()
      t.equal(text(`${b.m}/f`), block.toString('latin1'))
    },
  },
  {
    name: 'fallocate',
    run(t, b) {
      b.mount()
      const fd = b.open(`${b.m}/f`, O.CREAT | O.RDWR)
      t.equal(sys.fallocate(fd, 0, 0, 64 * MiB), ENOSPC)
      t.equal(b.fstat(fd).size, 0)
      sys.close(fd)
    },
  },
  {
    name: 'copy-up at open, chmod, link, rename and truncate',
    run(t, b) {
      const content = 'x'.repeat(2 * MiB)
      fs.mkdirSync(`${b.lower}/d`)
      fs.writeFileSync(`${b.lower}/d/big`, content)
      fs.writeFileSync(`${b.lower}/d/big2`, content)
      b.mount()
      // Parent directories may be copied up even if there is no space for the file.
      fs.mkdirSync(`${b.m}/other`)
      b.fill(512 * 1024)
      const at = sys.AT_FDCWD
      const big = `${b.m}/d/big`
      const before = b.stat(big)
      const attempts: [string, () => number][] = [
        ['open', () => open(big, O.RDWR)],
        ['open to append', () => open(big, O.WRONLY | O.APPEND)],
        ['chmod', () => sys.fchmodat(at, big, 0o600)],
        ['chown', () => sys.fchownat(at, big, 1000, 1000, 0)],
        [
          'setxattr',
          () => sys.setxattr({ path: big, follow: true }, 'user.a', Buffer.from('a'), 0),
        ],
        ['link', () => sys.linkat(at, big, at, `${b.m}/other/link`, 0)],
        ['rename', () => sys.renameat2(at, big, at, `${b.m}/other/moved`, 0)],
        ['exchange', () => sys.renameat2(at, big, at, `${b.m}/d/big2`, sys.RENAME.EXCHANGE)],
        ['truncate to something', () => sys.truncate(big, MiB + 5)],
      ]
      for (const [name, attempt] of attempts) {
        t.equal(attempt(), ENOSPC, name)
        t.notOk(fs.existsSync(`${b.upperOnDisk}/d/big`), `${name}: no half file`)
        t.same(b.leftInWork(), [], `${name}: nothing left over`)
        t.same(b.list(`${b.m}/other`), [])
        t.same(b.list(`${b.m}/d`), ['big', 'big2'])
      }
      const after = b.stat(big)
      t.same(
        [after.mode, after.uid, after.size, after.mtime],
        [before.mode, before.uid, before.size, before.mtime],
      )
      t.equal(text(big), content, 'the content is unchanged')
      const cut = open(big, O.WRONLY | O.TRUNC)
      t.ok(cut >= 0, 'O_TRUNC needs no space for the old content')
      sys.close(cut)
      t.equal(b.stat(big).size, 0)
      b.makeRoom()
      t.equal(
        sys.renameat2(at, `${b.m}/d/big2`, at, `${b.m}/other/moved`, 0),
        0,
        'with room it works',
      )
      b.remount()
      t.same(b.list(`${b.m}/d`), ['big'])
      t.equal(text(`${b.m}/other/moved`), content)
    },
  },
  {
    name: 'no inode left: create, mkdir, symlink, mknod, copy-up, unlink, rename',
    options: 'nr_inodes=64,size=8m',
    run(t, b) {
      fs.mkdirSync(`${b.lower}/d/sub`, { recursive: true })
      fs.writeFileSync(`${b.lower}/d/f`, 'lower')
      fs.writeFileSync(`${b.lower}/d/sub/f`, 'lower')
      b.mount()
      fs.writeFileSync(`${b.m}/own`, 'own')
      b.fillInodes()
      const at = sys.AT_FDCWD
      const attempts: [string, () => number][] = [
        ['create', () => open(`${b.m}/new`, O.CREAT | O.RDWR)],
        ['create in a lower directory', () => open(`${b.m}/d/new`, O.CREAT | O.RDWR)],
        ['mkdir', () => sys.mkdirat(at, `${b.m}/new`, 0o755)],
        ['symlink', () => sys.symlinkat('x', at, `${b.m}/new`)],
        ['mknod', () => sys.mknodat(at, `${b.m}/new`, sys.S.IFIFO | 0o644, 0, 0)],
        ['O_TMPFILE', () => open(b.m, O.TMPFILE | O.RDWR)],
        ['open to write', () => open(`${b.m}/d/f`, O.RDWR)],
        ['chmod', () => sys.fchmodat(at, `${b.m}/d/sub/f`, 0o600)],
        ['rename', () => sys.renameat2(at, `${b.m}/d/f`, at, `${b.m}/d/g`, 0)],
      ]
      for (const [name, attempt] of attempts) {
        t.equal(attempt(), ENOSPC, name)
        t.same(b.leftInWork(), [], `${name}: nothing left over`)
        t.same(b.list(b.m), ['d', 'own'])
        t.same(b.list(`${b.m}/d`), ['f', 'sub'])
        t.equal(text(`${b.m}/d/f`), 'lower')
      }
      t.equal(sys.unlinkat(at, `${b.m}/own`, 0), 0, 'calls that need no space succeed')
      b.makeRoom()
      fs.writeFileSync(`${b.m}/d/f`, 'new')
      fs.mkdirSync(`${b.m}/new`)
      b.remount()
      t.equal(text(`${b.m}/d/f`), 'new')
      t.same(b.list(b.m), ['d', 'new'])
    },
  },
  {
    name: 'removing files of a full union',
    run(t, b) {
      for (let i = 0; i < 20; i++) fs.writeFileSync(`${b.lower}/f${i}`, 'f')
      b.mount()
      fs.writeFileSync(`${b.m}/big`, 'x'.repeat(MiB))
      b.fill()
      const results = b.list(b.m).map(name => sys.unlinkat(sys.AT_FDCWD, `${b.m}/${name}`, 0))
      t.ok(
        results.every(result => result === 0 || result === ENOSPC),
        'each is removed, or there is no room for its whiteout',
      )
      b.makeRoom()
      for (const name of b.list(b.m)) fs.unlinkSync(`${b.m}/${name}`)
      b.remount()
      t.same(b.list(b.m), [])
    },
  },
]

for (const kind of KINDS)
  t.test(kind.name, { skip: skipKind(kind) }, async t => {
    for (const { name, options, run } of CASES)
      await t.test(name, { skip: notNoOpen(kind, name) }, async t => {
        const bench = new SmallBench(kind, options ?? 'size=4m')
        try {
          run(t, bench)
          bench.umount()
          const hidden = spawnSync('find', [bench.upperOnDisk, '-name', '.fuse_hidden*'], {
            encoding: 'utf8',
          })
          t.equal(hidden.stdout, '', 'no hidden files')
          t.same(bench.leftInWork(), [], 'the workdir is clean after the umount')
        } finally {
          bench.end()
        }
      })
  })

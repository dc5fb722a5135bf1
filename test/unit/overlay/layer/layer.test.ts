import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import { DirectoryFds, Layer, RealDir } from '../../../../src/overlay/layer/layer.js'
import { E } from '../../../../src/sys/errno.js'
import { close } from '../../../../src/sys/io.js'
import { scratch } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'

const rig = (t: Test, max = 8) => {
  const top = scratch(t)
  const fd = fs.openSync(top, 'r')
  const layer = new Layer({
    index: 1,
    path: top,
    fd,
    dev: 0,
    fsIndex: 0,
    uuid: Buffer.alloc(16),
    handles: false,
    isPrivate: false,
  })
  const fds = new DirectoryFds(max)
  t.teardown(() => {
    fds.closeAll()
    fs.closeSync(fd)
  })
  /** Creates the directory of a path and its parents, if they do not exist. */
  const directory = (path: string): RealDir => {
    sys.mkdirat(fd, path, 0o755)
    const at = path.lastIndexOf('/')
    return new RealDir(
      layer,
      at < 0 ? layer.root : directory(path.slice(0, at)),
      path.slice(at + 1),
    )
  }
  return { top, layer, fds, directory }
}
/** Counts the descriptors only: some lead to paths that are too long to be read. */
const openFds = (): number => fs.readdirSync('/proc/self/fd').length

const inodeOf = (fd: number): bigint | number => {
  const stat = sys.fstat(fd)
  return typeof stat === 'number' ? stat : stat.ino
}
const inodeAt = (path: string): bigint => (sys.lstat(sys.AT_FDCWD, path) as sys.Stat).ino

t.test('directories are reopened, at any number and depth', async t => {
  const { top, fds, directory } = rig(t)
  const before = openFds()
  const names = Array.from({ length: 30 }, (_, i) => `d\xff${i}`)
  const dirs = names.map(directory)
  for (let round = 0; round < 2; round++)
    for (const [i, dir] of dirs.entries())
      t.equal(inodeOf(fds.get(dir)), inodeAt(`${top}/${names[i]}`))
  t.equal(openFds() - before, 8, 'and no more stay open')

  // Deeper than a single path can name.
  let at = directory('deep')
  for (let depth = 0; depth < 40; depth++) {
    const name = 'n'.repeat(200)
    sys.mkdirat(fds.get(at), name, 0o755)
    at = new RealDir(at.layer, at, name)
  }
  fds.closeAll()
  t.ok(fds.get(at) >= 0)
  t.equal(openFds() - before, 1, 'temporary descriptors are closed')
})

t.test('a descriptor stays open over the next seven calls', async t => {
  const { fds, directory } = rig(t, 1)
  const first = directory('first')
  const fd = fds.get(first)
  const inode = inodeOf(fd)
  for (let i = 0; i < 7; i++) fds.get(directory(`d${i}`))
  t.equal(inodeOf(fd), inode)
})

t.test('no path follows a symlink or leaves the layer', async t => {
  const { top, layer, fds, directory } = rig(t)
  fs.symlinkSync('/', `${top}/link`)
  fs.writeFileSync(`${top}/file`, '')
  directory('d')
  const at = (...names: string[]): number =>
    fds.get(names.reduce((dir, name) => new RealDir(layer, dir, name), layer.root))
  t.equal(at('link'), -E.ENOTDIR)
  t.equal(at('link', 'etc'), -E.ELOOP)
  t.equal(at('..'), -E.EXDEV)
  t.equal(at('file'), -E.ENOTDIR)
  t.equal(at('none'), -E.ENOENT)
  t.equal(at('d', 'none'), -E.ENOENT)
  t.equal(fds.get(layer.root), layer.fd)
  const removed = directory('d')
  removed.parent = null
  t.equal(fds.get(removed), -E.ENOENT, 'a directory that was removed')
  t.equal(fds.get(new RealDir(layer, removed, 'x')), -E.ENOENT, 'and an entry of it')
})

t.test('ownership of descriptors', async t => {
  const { top, fds, directory } = rig(t)
  const before = openFds()
  const dir = directory('d')
  const own = sys.open(`${top}/d`, sys.O.RDONLY)
  fds.adopt(dir, sys.open(top, sys.O.RDONLY))
  fds.adopt(dir, own)
  t.equal(openFds(), before + 1, 'an older one is closed')
  t.equal(fds.get(dir), own)
  t.equal(fds.detach(dir), own)
  t.not(inodeOf(own), -E.EBADF, 'taken, not closed')
  t.equal(fds.detach(dir), -1)
  close(own)
  fds.get(dir)
  fds.drop(dir)
  fds.drop(dir)
  t.equal(openFds(), before)
  for (let i = 0; i < 8; i++) fds.get(directory(`d${i}`))
  fds.shrink()
  t.equal(openFds(), before + 4, 'half of them, to begin with')
  fds.closeAll()
  t.equal(openFds(), before)
})

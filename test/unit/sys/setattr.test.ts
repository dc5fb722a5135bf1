import * as fs from 'node:fs'
import t from 'tap'
import * as at from '../../../src/sys/at.js'
import * as k from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import { features } from '../../../src/sys/features.js'
import { directory } from './support.js'

// First with fchmodat2, if the kernel has it, then as on a kernel without it.
for (const kernel of ['this', 'older']) {
  t.test(`mode, owner, times; ${kernel} kernel`, async t => {
    const before = features.fchmodat2
    t.teardown(() => (features.fchmodat2 = before))
    if (kernel === 'older') features.fchmodat2 = false

    const d = directory(t)
    fs.writeFileSync(d.at('file'), '')
    fs.symlinkSync('file', d.at('link'))
    const rw = d.keep(at.openat(d.fd, 'file', k.O_RDWR))
    const path = d.keep(at.openat(d.fd, 'file', k.O_PATH))
    const link = d.keep(at.openat(d.fd, 'link', k.O_PATH))
    const mode = (): number => fs.statSync(d.at('file')).mode & 0o7777

    t.equal(at.fchmodat(d.fd, 'file', 0o4711), 0)
    t.equal(mode(), 0o4711)
    t.equal(at.fchmodat(d.fd, 'link', 0o600), -E.EOPNOTSUPP)
    t.equal(at.fchmodat(d.fd, 'none', 0o600), -E.ENOENT)
    t.equal(mode(), 0o4711, 'the symlink was not followed')
    t.equal(at.fchmod(rw, 0o640), 0)
    t.equal(mode(), 0o640)
    t.equal(at.fchmod(path, 0o604), 0)
    t.equal(mode(), 0o604)
    t.equal(at.fchmod(link, 0o600), -E.EOPNOTSUPP)
    t.equal(at.fchmod(-1, 0o600), -E.EBADF)
    t.equal(at.fchmod(999_999, 0o600), -E.EBADF)

    const owner = (name: string): number[] => {
      const s = fs.lstatSync(d.at(name))
      return [s.uid, s.gid]
    }
    t.equal(at.fchownat(d.fd, 'file', 1, 4_294_967_294), 0)
    t.strictSame(owner('file'), [1, 4_294_967_294])
    t.equal(at.fchownat(d.fd, 'link', 5, -1), 0)
    t.strictSame(
      [owner('link'), owner('file')],
      [
        [5, 0],
        [1, 4_294_967_294],
      ],
    )
    t.equal(at.fchown(path, -1, 7), 0)
    t.equal(at.fchown(rw, 8, 0xffff_ffff), 0)
    t.strictSame(owner('file'), [8, 7])
    t.equal(at.fchown(link, 9, 9), 0)
    t.strictSame(
      [owner('link'), owner('file')],
      [
        [9, 9],
        [8, 7],
      ],
    )
    t.equal(at.fchownat(d.fd, 'none', 1, 1), -E.ENOENT)

    const times = (name: string): string => {
      const s = fs.lstatSync(d.at(name), { bigint: true })
      return `${s.atimeNs} ${s.mtimeNs}`
    }
    t.equal(at.utimensat(d.fd, 'file', 1, 123_456_789, -1_000_000_000, 999_999_999), 0)
    t.equal(times('file'), '1123456789 -999999999000000001')
    t.equal(at.utimensat(d.fd, 'link', 7_000_000_000, 1, 7, 0), 0, 'beyond 32 bits')
    t.equal(times('link'), '7000000000000000001 7000000000')
    t.equal(times('file'), '1123456789 -999999999000000001')
    t.equal(at.futimens(path, 0, k.UTIME_OMIT, 42, 0), 0)
    t.equal(times('file'), '1123456789 42000000000')
    t.equal(at.futimens(rw, 43, 1, 0, k.UTIME_OMIT), 0)
    t.equal(times('file'), '43000000001 42000000000')
    t.equal(at.futimens(link, 1, 0, 2, 0), 0)
    t.equal(times('link'), '1000000000 2000000000')
    t.equal(at.utimensat(d.fd, 'file', 0, k.UTIME_NOW, 0, k.UTIME_NOW), 0)
    t.ok(Math.abs(fs.statSync(d.at('file')).mtimeMs - Date.now()) < 5000)
    t.equal(at.utimensat(d.fd, 'file', 0, 1_000_000_000, 0, 0), -E.EINVAL)
    t.equal(at.utimensat(d.fd, 'none', 0, 0, 0, 0), -E.ENOENT)
    t.equal(at.futimens(-1, 0, 0, 0, 0), -E.EBADF)
  })
}

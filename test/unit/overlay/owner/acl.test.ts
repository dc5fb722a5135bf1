import * as fc from 'fast-check'
import t from 'tap'

import {
  ACL_ACCESS,
  ACL_DEFAULT,
  applyDefaultAcl,
  setInheritedAcls,
} from '../../../../src/overlay/owner/acl.js'
import { E } from '../../../../src/sys/errno.js'
import { acl, scratch } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'

const bytes = (text: string): Buffer => Buffer.from(acl(text), 'latin1')
const get = (path: string, name: string): Buffer | number =>
  sys.getxattr({ path, follow: false }, name)

const perms = fc
  .integer({ min: 0, max: 7 })
  .map(bits => ['r', 'w', 'x'].map((c, i) => ((bits & (4 >> i)) === 0 ? '-' : c)).join(''))
const ids = fc.uniqueArray(fc.integer({ min: 1, max: 60_000 }), { maxLength: 3 })

/**
 * A default ACL that the kernel accepts: in order, and with a mask if it has more than three
 * entries.
 */
const defaults = fc
  .record({ u: perms, g: perms, o: perms, m: perms, each: perms, users: ids, groups: ids })
  .chain(spec => fc.boolean().map(masked => ({ ...spec, masked })))
  .map(({ u, g, o, m, each, users, groups, masked }) => {
    const named = (tag: string, list: number[]): string[] =>
      list.toSorted((a, b) => a - b).map(id => `${tag}:${id}:${each}`)
    const mask = masked || users.length + groups.length > 0 ? [`m::${m}`] : []
    return [`u::${u}`, ...named('u', users), `g::${g}`, ...named('g', groups), ...mask, `o::${o}`]
  })
  .map(entries => entries.join(','))

const top = scratch(t)
const refused = sys.setxattr(
  { path: top, follow: true },
  ACL_DEFAULT,
  bytes('u::r--,g::r--,o::---'),
  0,
)

t.test(
  'a created object has the mode and the ACLs as on the kernel',
  { skip: refused < 0 && `no ACLs here: errno ${-refused}` },
  async t => {
    const dir = sys.open(top, sys.O.RDONLY | sys.O.DIRECTORY)
    t.teardown(() => sys.close(dir))
    const stage = `${top}/stage`
    sys.mkdirat(sys.AT_FDCWD, stage, 0o700)
    sys.removexattr({ path: stage, follow: false }, ACL_DEFAULT)
    const staged = sys.open(stage, sys.O.RDONLY | sys.O.DIRECTORY)
    t.teardown(() => sys.close(staged))
    let run = 0
    fc.assert(
      fc.property(
        defaults,
        fc.integer({ min: 0, max: 0o777 }),
        fc.boolean(),
        (text, perm, directory) => {
          const value = bytes(text)
          const name = String(run++)
          sys.setxattr({ path: top, follow: true }, ACL_DEFAULT, value, 0)
          const type = directory ? sys.S.IFDIR : sys.S.IFREG
          const make = (fd: number, mode: number): number =>
            directory ? sys.mkdirat(fd, name, mode) : sys.mknodat(fd, name, type | mode, 0, 0)
          make(dir, perm)
          const created = applyDefaultAcl(value, type | perm)
          make(staged, 0)
          sys.fchmodat(staged, name, created.mode & 0o7777)
          if (setInheritedAcls(staged, name, created.mode, value, created) !== 0) return false
          const facts = (path: string, fd: number): unknown[] => [
            (sys.lstat(fd, name) as sys.Stat).mode,
            get(path, ACL_ACCESS),
            get(path, ACL_DEFAULT),
          ]
          t.strictSame(facts(`${stage}/${name}`, staged), facts(`${top}/${name}`, dir), text)
          return created.mode === (sys.lstat(dir, name) as sys.Stat).mode
        },
      ),
      { numRuns: 60 },
    )
  },
)

t.test('bits beside the permissions stay, and the default ACL is not written to', async t => {
  const value = bytes('u::r--,u:5:rwx,g::rwx,m::rwx,o::rwx')
  const before = Buffer.from(value)
  t.equal(applyDefaultAcl(value, 0o106775).mode, 0o106475)
  t.same(value, before)
})

t.test('three entries say no more than the mode', async t => {
  t.strictSame(applyDefaultAcl(bytes('u::rw-,g::r-x,o::--x'), 0o100777), {
    mode: 0o100651,
    access: null,
  })
})

t.test('entries that were cut off are none', async t => {
  const whole = bytes('u::---,g::---,o::---')
  for (let length = 0; length < 12; length++)
    t.strictSame(applyDefaultAcl(whole.subarray(0, length), 0o100644), {
      mode: 0o100644,
      access: null,
    })
  t.equal(applyDefaultAcl(whole.subarray(0, 12), 0o100644).mode, 0o100044, 'the first alone')
  t.equal(applyDefaultAcl(whole.subarray(0, 27), 0o100644).mode, 0o100004, 'two and a piece')
})

t.test('a symlink gets none, and a missing object is an error', async t => {
  const value = bytes('u::rwx,u:5:rwx,g::rwx,m::rwx,o::rwx')
  const created = applyDefaultAcl(value, sys.S.IFDIR | 0o755)
  t.equal(setInheritedAcls(-1, 'x', sys.S.IFLNK | 0o777, value, created), 0)
  t.equal(setInheritedAcls(-1, 'x', created.mode, value, created), -E.EBADF)
  const plain = { mode: 0o100644, access: null }
  t.equal(setInheritedAcls(-1, 'x', plain.mode, value, plain), 0, 'nothing to set')
})

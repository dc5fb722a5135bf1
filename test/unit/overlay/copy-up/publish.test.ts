import t from 'tap'

import { RealDir } from '../../../../src/overlay/layer/layer.js'
import { setImpure, publish, type NameCopy } from '../../../../src/overlay/copy-up/publish.js'
import { E } from '../../../../src/sys/errno.js'
import { dir, PAST, unionDirectories } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { optionsOf } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

const makeDirectory: NameCopy = (_from, _temp, dirfd, name) => sys.mkdirat(dirfd, name, 0o700)

t.test('a copy is published in an upper directory', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [{}], upper: { 'd/': dir() } })
  const { u, find, notified } = stateOf(t, optionsOf(where, { volatile: true }))
  const into = find('d')
  into.lookups = 1
  const times = (): unknown => {
    const { atime, mtime } = sys.lstat(u.upper!.fd, 'd') as sys.Stat
    return { atime, mtime }
  }
  const neverCalled: NameCopy = () => {
    t.fail('not to be called')
    return 0
  }
  const past = BigInt(PAST.sec) * 1_000_000_000n + BigInt(PAST.nsec)
  const made = publish(u, into, 'new\xff', makeDirectory, -1, '')
  t.equal(made, 0)
  t.strictSame(notified, [into.id], 'its ctime is another')
  t.strictSame(times(), { atime: past, mtime: past }, 'its times stay')
  t.equal(u.xattrs.value(u.upper!.fd, 'd', 'impure'), 'y')

  t.equal(
    publish(u, into, 'other', () => -E.ENOSPC, -1, ''),
    -E.ENOSPC,
  )

  const real = into.upperDir!
  into.dirs = [new RealDir(real.layer, real, 'gone')]
  t.equal(publish(u, into, 'new', neverCalled, -1, ''), -E.ENOENT)
  into.dirs = []
  t.equal(publish(u, into, 'new', neverCalled, -1, ''), -E.EIO, 'a directory of no layer')
})

const fresh = (): RealDir => new RealDir({} as never, null, '')

t.test('the impure xattr is set once, and a refusal is ignored', async t => {
  const asked: unknown[] = []
  const answering = (result: number) =>
    ({ xattrs: { set: (...args: unknown[]) => (asked.push(args), result) } }) as never
  const into = fresh()
  t.equal(setImpure(answering(0), into, 5), 0)
  t.equal(setImpure(answering(-E.EIO), into, 5), 0)
  t.strictSame(asked, [[5, '', 'impure', 'y']])
  for (const errno of [E.EOPNOTSUPP, E.EPERM]) t.equal(setImpure(answering(-errno), fresh(), 5), 0)
  const failed = fresh()
  t.equal(setImpure(answering(-E.ENOSPC), failed, 5), -E.ENOSPC)
  t.notOk(failed.impure)
})

import t from 'tap'

import {
  findFusermount,
  fusermountOptions,
  othersAllowed,
} from '../../../../src/fuse/mount/fusermount.js'
import { addMountFlag } from '../../../../src/config/mount-flags.js'
import type { MountFlag } from '../../../../src/config/types.js'

const request = {
  mountpoint: '/m',
  fsname: 'tsoverlay',
  subtype: 'tsoverlay',
  allowOther: false,
  flags: 0,
}

t.test('options', async t => {
  t.equal(
    fusermountOptions(request),
    'fsname=tsoverlay,subtype=tsoverlay,default_permissions,max_read=1044480',
  )
  t.equal(
    fusermountOptions({ ...request, fsname: 'a,b\\c', subtype: '', allowOther: true }),
    'fsname=a\\,b\\\\c,default_permissions,max_read=1044480,allow_other',
  )
  const words: MountFlag[] = ['ro', 'noexec', 'nosuid', 'nodev', 'sync', 'dirsync', 'noatime']
  const flags = words.reduce(addMountFlag, 0)
  t.match(fusermountOptions({ ...request, flags }), /,ro,noexec,sync,dirsync,noatime$/)
})

t.test('allow_other', async t => {
  const dir = t.testdir({
    allowed: '# a comment\nuser_allow_other\nmount_max = 10\n',
    not: '#user_allow_other\n',
  })
  t.equal(othersAllowed(`${dir}/allowed`), true)
  t.equal(othersAllowed(`${dir}/not`), false)
  t.equal(othersAllowed(`${dir}/missing`), false)
  t.equal(othersAllowed(dir), true, 'where it cannot be read fusermount3 decides')
})

t.test('the program', async t => {
  const dir = t.testdir({ fusermount3: '' })
  t.not(findFusermount(dir), `${dir}/fusermount3`, 'it must be executable')
})

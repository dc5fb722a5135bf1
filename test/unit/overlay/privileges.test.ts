import * as fs from 'node:fs'

import t from 'tap'

import { isMember, privilegesLeft } from '../../../src/overlay/privileges.js'
import { fstatx } from '../../../src/sys/at.js'
import { Stat } from '../../../src/sys/stat.js'
import { scratch } from '../../helpers/layers.js'
import * as sys from '../../helpers/syscalls.js'
import { skipUnions } from './support.js'

const GROUP = 4321
const callers = {
  'a member': { uid: 1234, gid: GROUP, groups: [] },
  'a member by another group': { uid: 1234, gid: 1, groups: [2, GROUP, 3] },
  'somebody else': { uid: 1234, gid: 1, groups: [432, 43210] },
}

for (const [name, who] of Object.entries(callers))
  t.test(`what the kernel leaves to ${name}`, { skip: skipUnions }, async t => {
    const fd = fs.openSync(`${scratch(t)}/f`, 'w+')
    t.teardown(() => fs.closeSync(fd))
    fs.fchownSync(fd, 77, GROUP)
    const st = new Stat()
    for (const mode of [0, 0o10, 0o777])
      for (const bits of [0, 0o2000, 0o4000, 0o6000, 0o7000]) {
        fs.fchmodSync(fd, bits | mode)
        fstatx(fd, st)
        const left = sys.withCredentials(who, () => {
          const result = privilegesLeft(st.mode, st.gid, { ...who, pid: process.pid, umask: 0 })
          sys.pwrite(fd, Buffer.from('x'), 0)
          return result
        })
        t.equal(left, fs.fstatSync(fd).mode, (bits | mode).toString(8))
      }
  })

t.test('a folder keeps all of them', async t => {
  const st = { mode: sys.S.IFDIR | 0o6777, gid: 5 }
  t.equal(privilegesLeft(st.mode, st.gid, { uid: 1, gid: 1, pid: 0, umask: 0 }), st.mode)
})

t.test('root is in every group, and who is gone in none but its own', async t => {
  const gone = { uid: 1, gid: 7, pid: 2 ** 30, umask: 0 }
  t.ok(isMember({ ...gone, uid: 0 }, 5))
  t.ok(isMember(gone, 7))
  t.notOk(isMember(gone, 5))
  t.notOk(isMember({ ...gone, pid: 0 }, 5), 'a process of another namespace')
})

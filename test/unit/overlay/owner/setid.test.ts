import { spawn } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'

import t from 'tap'

import {
  isCapable,
  isInChown,
  isMember,
  mayChangeMode,
  modeWithoutSetid,
} from '../../../../src/overlay/owner/setid.js'
import { fstatx } from '../../../../src/sys/at.js'
import { Stat } from '../../../../src/sys/stat.js'
import { CAP, withCaller, type Caller } from '../../../helpers/callers.js'
import { scratch } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { skipUnions } from '../support.js'

const GROUP = 4321
const callers = {
  'a member': { uid: 1234, gid: GROUP, groups: [] },
  'a member by another group': { uid: 1234, gid: 1, groups: [2, GROUP, 3] },
  'somebody else': { uid: 1234, gid: 1, groups: [432, 43210] },
}

for (const [name, caller] of Object.entries(callers))
  t.test(`what the kernel leaves to ${name}`, { skip: skipUnions }, async t => {
    const fd = fs.openSync(`${scratch(t)}/f`, 'w+')
    t.teardown(() => fs.closeSync(fd))
    fs.fchownSync(fd, 77, GROUP)
    const st = new Stat()
    for (const mode of [0, 0o10, 0o777])
      for (const bits of [0, 0o2000, 0o4000, 0o6000, 0o7000]) {
        fs.fchmodSync(fd, bits | mode)
        fstatx(fd, st)
        const left = sys.withCredentials(caller, () => {
          const result = modeWithoutSetid(st.mode, st.uid, st.gid, {
            ...caller,
            pid: process.pid,
            umask: 0,
          })
          sys.pwrite(fd, Buffer.from('x'), 0)
          return result
        })
        t.equal(left, fs.fstatSync(fd).mode, (bits | mode).toString(8))
      }
  })

t.test('a directory keeps all of them', async t => {
  const st = { mode: sys.S.IFDIR | 0o6777, uid: 5, gid: 5 }
  t.equal(modeWithoutSetid(st.mode, st.uid, st.gid, { uid: 1, gid: 1, pid: 0, umask: 0 }), st.mode)
})

t.test('root is in every group, and an ended caller only in its own', async t => {
  const gone = { uid: 1, gid: 7, pid: 2 ** 30, umask: 0 }
  t.ok(isMember({ ...gone, uid: 0 }, 0, 5))
  t.ok(isMember(gone, 0, 7))
  t.notOk(isMember(gone, 0, 5))
  t.notOk(isMember({ ...gone, pid: 0 }, 0, 5), 'a process of another namespace')
})

const named = (caller: Omit<Caller, 'name' | 'groups'>): Caller => ({
  name: '',
  groups: [],
  ...caller,
})
const asked = ({ uid, gid }: Caller) => ({ uid, gid, pid: process.pid, umask: 0 })

t.test('capabilities count, not user 0', { skip: skipUnions }, async t => {
  const root = named({ uid: 0, gid: 0 })
  const lacking = named({ uid: 0, gid: 0, lacks: [CAP.FSETID, CAP.FOWNER] })
  const user = named({ uid: 1234, gid: 1 })
  const having = named({ uid: 1234, gid: 1, has: [CAP.FSETID, CAP.FOWNER] })
  for (const [caller, may] of [
    [root, true],
    [lacking, false],
    [user, false],
    [having, true],
  ] as const) {
    const what = `${caller.uid} ${String(may)}`
    withCaller(caller, () => {
      t.equal(isCapable(asked(caller), CAP.FSETID), may, what)
      t.equal(mayChangeMode(asked(caller), 77), may, what)
      t.equal(isMember(asked(caller), 77, GROUP), may, what)
      t.ok(mayChangeMode(asked(caller), caller.uid), 'an owner may in any case')
    })
  }
})

t.test('of unknown callers, only root is assumed to be capable', async t => {
  const gone = { uid: 1, gid: 1, pid: 2 ** 30, umask: 0 }
  for (const known of [gone, { ...gone, pid: 0 }]) {
    t.notOk(isCapable(known, CAP.FSETID))
    t.notOk(mayChangeMode(known, 5))
    t.ok(isCapable({ ...known, uid: 0 }, CAP.FSETID))
    t.ok(mayChangeMode({ ...known, uid: 0 }, 5))
    t.equal(isInChown(known), undefined)
  }
})

t.test('capabilities over ids outside the user namespace', { skip: skipUnions }, async t => {
  const child = spawn('unshare', ['-r', 'sleep', '60'], { uid: 1234, gid: 1234 })
  t.teardown(() => child.kill())
  const pid = child.pid ?? 0
  const mapped = (): boolean => {
    const map = fs.readFileSync(`/proc/${pid}/uid_map`, 'latin1')
    return /^\s*0\s+1234\s+1\s*$/.test(map)
  }
  for (const end = Date.now() + 20_000; !mapped() && Date.now() < end;)
    await new Promise(done => setTimeout(done, 20))
  if (!mapped()) {
    t.pass('no user namespaces here')
    return
  }
  const caller = { uid: 1, gid: 1, pid, umask: 0 }
  t.notOk(isCapable(caller, CAP.FSETID), 'not in the initial one')
  t.notOk(mayChangeMode(caller, 0), "root's file")
  t.ok(mayChangeMode(caller, 1234), 'one of its own')
})

t.test('the system call of a caller', async t => {
  const child = spawn('sleep', ['60'])
  t.teardown(() => child.kill())
  await once(child, 'spawn')
  t.equal(isInChown({ uid: 0, gid: 0, pid: child.pid ?? 0, umask: 0 }) ?? false, false)
})

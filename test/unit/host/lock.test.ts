import { spawn } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'

import t from 'tap'

import { lockOwner } from '../../../src/host/lock-holder.js'
import { findHolder, lockUpper } from '../../../src/host/lock.js'

const locks = `1: FLOCK  ADVISORY  WRITE 1234 fe:00:524545 0 EOF
1: -> FLOCK  ADVISORY  WRITE 77 fe:00:524545 0 EOF
2: POSIX  ADVISORY  WRITE 55 fe:00:99 0 EOF
3: FLOCK  ADVISORY  WRITE 88 00:2f:99 0 EOF
4: FLOCK  ADVISORY  WRITE 89 fe:00:99 0 EOF
5: FLOCK  ADVISORY  READ -1 fe:00:7 0 EOF
`

t.test('the owner in /proc/locks', async t => {
  t.equal(lockOwner(locks, 0xfe, 0, '524545'), 1234, 'not who waits for it')
  t.equal(lockOwner(locks, 0xfe, 0, '99'), 89, 'the right device')
  t.equal(lockOwner(locks, 0, 0x2f, '99'), 88)
  t.equal(lockOwner(locks, 1, 1, '99'), 88, 'without the device: the inode')
  t.equal(lockOwner(locks, 0xfe, 0, '7'), 0, 'of another pid namespace')
  t.equal(lockOwner(locks, 0xfe, 0, '5245'), undefined)
  t.equal(lockOwner('', 0xfe, 0, '7'), undefined)
})

const close = (fds: number[]) => fds.forEach(fd => fs.closeSync(fd))

t.test('locking', async t => {
  const top = fs.mkdtempSync(`${tmpdir()}/tsoverlay-lock-`)
  t.teardown(() => fs.rmSync(top, { recursive: true }))
  const [upper, work] = [`${top}/upper`, `${top}/work`]
  fs.mkdirSync(upper)
  fs.mkdirSync(work)
  const open = (): [number, number] => [fs.openSync(upper, 'r'), fs.openSync(work, 'r')]
  const lock = (fds: [number, number]) => lockUpper(...fds, upper, work)

  t.test('free, and free again', async t => {
    for (let i = 0; i < 2; i++) {
      const fds = open()
      lock(fds)
      t.same(findHolder(fds[0]), { pid: process.pid, mountpoints: [], server: process.pid })
      close(fds)
    }
    t.same(fs.readdirSync(upper), [], 'nothing is written')
    t.same(fs.readdirSync(work), [])
  })

  t.test('held by a process without a mount: the error names it after a wait', async t => {
    const holder = spawn('flock', [work, 'sh', '-c', 'echo held; exec sleep 1'])
    await once(holder.stdout, 'data')
    const fds = open()
    lock(fds)
    t.pass('it let go while we waited')
    close(fds)

    const stubborn = spawn('flock', ['-o', work, 'sh', '-c', 'echo held; exec cat'])
    t.teardown(() => stubborn.stdin.end())
    await once(stubborn.stdout, 'data')
    const more = open()
    t.throws(() => lock(more), {
      option: 'workdir',
      path: work,
      code: 'EBUSY',
      message: new RegExp(
        `workdir=.*/work is in use by process ${stubborn.pid}, which has no mount`,
      ),
    })
    close(more)
  })
})

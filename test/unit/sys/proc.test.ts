/** src/sys/proc.ts, caps.ts and mount.ts. Needs root. Changes to the process are undone. */

import * as fs from 'node:fs'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { fchown, mkdirat, openat } from '../../../src/sys/at.js'
import * as k from '../../../src/sys/constants.js'
import { E } from '../../../src/sys/errno.js'
import { close } from '../../../src/sys/io.js'
import { mount, umount, umountAsync } from '../../../src/sys/mount.js'
import * as proc from '../../../src/sys/proc.js'
import { directory, show } from './support.js'

const status = (tid: number): string => fs.readFileSync(`/proc/self/task/${tid}/status`, 'latin1')

/** A thread's effective capabilities as the kernel shows them. */
const effective = (tid = proc.gettid()): bigint =>
  BigInt(`0x${/CapEff:\s*(\w+)/.exec(status(tid))?.[1] ?? ''}`)

/** A thread's filesystem ids: uid, then gid. */
const fsIds = (tid = proc.gettid()): number[] =>
  [/Uid:.*\t(\d+)/, /Gid:.*\t(\d+)/].map(re => Number(re.exec(status(tid))?.[1]))

const allowedCpus = (): string => /Cpus_allowed:\s*(\S+)/.exec(status(proc.gettid()))?.[1] ?? ''

const bit = (cap: number): bigint => 1n << BigInt(cap)

t.test('widenDescriptorTable enlarges the table and leaks no descriptor', async t => {
  const before = fs.readdirSync('/proc/self/fd')
  await proc.widenDescriptorTable()
  t.strictSame(fs.readdirSync('/proc/self/fd'), before)
  const size = Number(/^FDSize:\s*(\d+)/m.exec(fs.readFileSync('/proc/self/status', 'latin1'))?.[1])
  t.ok(size >= Math.min(8192, proc.getrlimitNofile()), `${size}`)
})

t.test('pushFsIds: owner of new files, and capabilities stay', async t => {
  const d = directory(t)
  fs.mkdirSync(d.at('private'), { mode: 0o700 })
  const dir = d.keep(openat(d.fd, 'private', k.O_RDONLY))
  fs.chownSync(d.at('private'), 7, 7)
  const before = effective()
  t.strictSame(fsIds(), [0, 0])

  t.equal(proc.pushFsIds(1000, 1001), 0)
  t.strictSame(fsIds(), [1000, 1001])
  t.equal(effective(), before)
  t.equal(mkdirat(dir, 'made', 0o755), 0, 'in a directory which that user could not write')
  const file = d.keep(openat(dir, 'file', k.O_CREAT | k.O_RDWR, 0o600))
  t.equal(fchown(file, 12, -1), 0, 'CAP_CHOWN')
  proc.popFsIds()
  t.strictSame(fsIds(), [0, 0])
  t.equal(effective(), before)

  const owner = (name: string): number[] => {
    const s = fs.statSync(d.at(`private/${name}`))
    return [s.uid, s.gid]
  }
  t.strictSame(owner('made'), [1000, 1001])
  t.strictSame(owner('file'), [12, 1001])

  t.equal(proc.pushFsIds(0, 5), 0)
  t.equal(mkdirat(dir, 'gid', 0o755), 0)
  t.equal(proc.pushFsIds(4_294_967_294, 4_294_967_294), 0, 'nested')
  t.equal(mkdirat(dir, 'nobody', 0o755), 0)
  t.equal(proc.pushFsIds(4_294_967_294, 4_294_967_294), 0, 'the same again')
  t.equal(proc.pushFsIds(3, 4), 0)
  t.equal(mkdirat(dir, 'third', 0o755), 0)
  proc.popFsIds()
  proc.popFsIds()
  proc.popFsIds()
  t.strictSame(fsIds(), [0, 5])
  proc.popFsIds()
  t.strictSame(fsIds(), [0, 0])
  t.strictSame(
    [owner('gid'), owner('nobody'), owner('third')],
    [
      [0, 5],
      [4_294_967_294, 4_294_967_294],
      [3, 4],
    ],
  )
  proc.popFsIds()
  t.strictSame(fsIds(), [0, 0], 'a pop too many does nothing')
  t.equal(effective(), before)

  t.equal(proc.pushFsIds(-1, 0), -E.EPERM, 'not an id')
  t.strictSame(fsIds(), [0, 0])
  proc.popFsIds()
  t.equal(proc.pushFsIds(0, -1), -E.EPERM)
  proc.popFsIds()
  t.strictSame(fsIds(), [0, 0])
})

t.test('capabilities', async t => {
  const before = effective()
  const caps = [k.CAP_FSETID, k.CAP_DAC_OVERRIDE, k.CAP_MAC_ADMIN]
  for (const cap of caps) t.equal(proc.hasCap(cap), (before & bit(cap)) !== 0n)
  // A container may lack some.
  for (const cap of caps.filter(one => proc.hasCap(one))) {
    t.equal(proc.dropCap(cap), 0)
    t.notOk(proc.hasCap(cap))
    t.equal(effective(), before & ~bit(cap))
    t.equal(proc.pushFsIds(1, 1), 0)
    t.equal(effective(), before & ~bit(cap), 'as another')
    proc.popFsIds()
    t.equal(effective(), before & ~bit(cap), 'and back')
    t.equal(proc.raiseCap(cap), 0)
    t.ok(proc.hasCap(cap))
    t.equal(effective(), before)
  }
  t.equal(proc.raiseCap(63), -E.EPERM, 'no such capability')
  t.notOk(proc.hasCap(63))
  t.equal(proc.raiseCap(64), -E.EINVAL)
  t.equal(proc.dropCap(-1), -E.EINVAL)

  t.equal(proc.dropCap(k.CAP_SETUID), 0)
  t.equal(proc.pushFsIds(1, 0), -E.EPERM, 'without CAP_SETUID')
  t.strictSame(fsIds(), [0, 0])
  proc.popFsIds()
  t.equal(proc.raiseCap(k.CAP_SETUID), 0)
  t.equal(effective(), before)
})

t.test('setfsuid, setfsgid as such', async t => {
  const before = effective()
  t.equal(proc.setfsgid(77), 0)
  t.equal(proc.setfsgid(-1), 77)
  t.equal(proc.setfsuid(4_000_000_000), 0)
  t.equal(proc.setfsuid(-1), 4_000_000_000)
  t.ok(effective() < before, 'takes capabilities')
  t.equal(proc.setfsuid(0), 4_000_000_000)
  t.equal(proc.setfsgid(0), 77)
  t.equal(effective(), before)
  t.equal(proc.pushFsIds(5, 6), 0, 'push knows of it')
  t.strictSame(fsIds(), [5, 6])
  proc.popFsIds()
  t.strictSame(fsIds(), [0, 0])
})

t.test('per thread: ids, capabilities and errno', async t => {
  const d = directory(t)
  const worker = new Worker(new URL('./proc-worker.ts', import.meta.url), { workerData: d.fd })
  // Meanwhile this thread fails with a different errno.
  const mine = new Set<number>()
  const timer = setInterval(() => {
    for (let i = 0; i < 1000; i++) mine.add(openat(d.fd, 'none', k.O_RDONLY))
  }, 1)
  t.teardown(() => clearInterval(timer))
  const [theirs] = (await once(worker, 'message')) as [
    { errors: Set<number>; made: number; dropped: number; unshared: number; tid: number },
  ]
  clearInterval(timer)
  t.strictSame(theirs.errors, new Set([-E.EBADF]))
  t.strictSame(mine, new Set([-E.ENOENT]))
  t.strictSame([theirs.made, theirs.dropped, theirs.unshared], [0, 0, 0])
  t.not(theirs.tid, proc.gettid())
  t.strictSame(fsIds(theirs.tid), [1000, 1000])
  t.strictSame(fsIds(), [0, 0])
  t.equal(effective(theirs.tid), effective() & ~1n)
  t.equal(mkdirat(d.fd, 'main', 0o755), 0)
  t.equal(fs.statSync(d.at('worker')).uid, 1000)
  t.equal(fs.statSync(d.at('main')).uid, 0)
  t.equal(fs.statSync(d.at('worker')).mode & 0o777, 0, "with the thread's own umask")
  t.not(process.umask(), 0o777)
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  worker.postMessage('end')
  t.strictSame(await once(worker, 'exit'), [0])
})

t.test('process: euid, umask, tid, limits, affinity', async t => {
  t.equal(proc.geteuid(), process.geteuid?.())
  const mask = proc.umask(0o27)
  t.equal(proc.umask(mask), 0o27)
  t.equal(process.umask(), mask)
  t.equal(proc.gettid(), process.pid, 'of the main thread')

  const limits = /Max open files\s+(\d+)\s+(\d+)/.exec(
    fs.readFileSync('/proc/self/limits', 'latin1'),
  )
  const [soft, hard] = [Number(limits?.[1]), Number(limits?.[2])]
  t.equal(proc.getrlimitNofile(), soft)
  t.equal(proc.getrlimitNofileHard(), hard)
  t.equal(proc.setrlimitNofile(hard), 0)
  t.equal(proc.getrlimitNofile(), hard)
  if (!proc.hasCap(k.CAP_SYS_RESOURCE)) t.equal(proc.setrlimitNofile(hard + 1), -E.EPERM)
  t.equal(proc.setrlimitNofile(soft), 0)
  t.equal(proc.getrlimitNofile(), soft)
  t.equal(proc.getrlimitNofileHard(), hard)

  const all = allowedCpus()
  t.equal(proc.schedSetaffinity(0, 1), 0)
  t.equal(Number.parseInt(allowedCpus(), 16), 1)
  t.equal(
    proc.schedSetaffinity(proc.gettid(), BigInt(`0x${all.replaceAll(',', '').slice(-16)}`)),
    0,
  )
  t.equal(allowedCpus(), all)
  t.equal(proc.schedSetaffinity(0, 0), -E.EINVAL)
})

t.test('mount and umount', async t => {
  const d = directory(t)
  fs.mkdirSync(d.at('mnt-ö'))
  const target = d.at('mnt-ö')
  t.teardown(() => umount(target, k.MNT_DETACH))
  t.equal(umount(target, 0), -E.EINVAL)
  t.equal(await umountAsync(target, 0), -E.EINVAL)
  t.equal(umount(d.at('none'), 0), -E.ENOENT)
  t.equal(await umountAsync(d.at('none'), 0), -E.ENOENT)
  t.equal(mount('none', target, 'tmpfs', 0, 'x'.repeat(4096)), -E.E2BIG)
  t.equal(mount('none', target, 'no-such-fs', 0), -E.ENODEV)
  t.equal(mount('none', target, 'tmpfs', 0, 'nonsense=1'), -E.EINVAL)

  const mounted = mount('source', target, 'tmpfs', k.MS_NOSUID | k.MS_NODEV, 'size=64k,mode=0711')
  if (mounted === -E.EPERM) return t.comment(`mount: ${show(mounted)}`)
  t.equal(mounted, 0)
  t.equal(fs.statSync(target).mode & 0o777, 0o711)
  t.match(fs.readFileSync('/proc/self/mounts', 'latin1'), /^source \S+ tmpfs \S*nosuid,nodev/m)
  fs.writeFileSync(`${target}/file`, '')
  const fd = openat(d.fd, 'mnt-ö'.normalize(), k.O_RDONLY)
  t.equal(fd, -E.ENOENT, 'a ByteString, not UTF-16')
  const busy = d.keep(fs.openSync(`${target}/file`, 'r'))
  t.equal(await umountAsync(target, 0), -E.EBUSY)
  t.equal(umount(target, k.UMOUNT_NOFOLLOW), -E.EBUSY)
  t.equal(mount(null, target, null, k.MS_REMOUNT | k.MS_RDONLY), 0)
  t.equal(await umountAsync(target, k.MNT_DETACH), 0)
  t.notOk(fs.readFileSync('/proc/self/mounts', 'latin1').includes(d.path))
  close(busy)
})

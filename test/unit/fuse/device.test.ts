/**
 * The loop, with a pair of sockets that keep message boundaries in the place of /dev/fuse.
 */

// oxlint-disable-next-line no-restricted-imports -- the test's own end of the line
import koffi from 'koffi'
import t, { type Test } from 'tap'
import { Pending, type Job } from '../../../src/overlay/ops.js'
import { E } from '../../../src/sys/errno.js'
import { close, eventfd, eventfdSignal, read, setNonblock, write } from '../../../src/sys/io.js'
import { Device, REPLY_SIZE, type Blocking, type End } from '../../../src/fuse/device.js'
import { DataMode } from '../../../src/fuse/data-mode.js'
import { Session } from '../../../src/fuse/session.js'
import { MountError } from '../../../src/errors.js'
import { ReplyPipe } from '../../../src/fuse/splice.js'
import { Reply } from '../../../src/fuse/wire.js'
import {
  cstr,
  errorReply,
  join,
  OP,
  RecordingOps,
  reply,
  request,
  u32,
  u64,
  zeros,
} from '../../helpers/frames.js'
import { FakeFiles, initRequest, recordingLog } from './support.js'

const socketpair = koffi.load('libc.so.6').func('int socketpair(int, int, int, int *)')
const AF_UNIX = 1
const SOCK_SEQPACKET = 5

class FakeJob implements Job {
  callback: ((result: number) => void) | undefined
  onDone(callback: (result: number) => void): void {
    this.callback = callback
  }
}

const line = (
  t: Test,
  options: { refuse?: boolean; blocking?: Blocking; idle?: boolean; pipe?: ReplyPipe } = {},
) => {
  const pair = new Int32Array(2)
  socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair)
  const fd = pair[0]!
  let kernel = pair[1]!
  setNonblock(fd)
  setNonblock(kernel)
  const log = recordingLog()
  const ops = new RecordingOps()
  ops.wakeFd = eventfd()
  const session = new Session({
    ops,
    ...(options.pipe === undefined ? {} : { pipe: options.pipe }),
    reply: new Reply(REPLY_SIZE),
    log,
    wish: { io: 'cached', writeback: false, stackDepth: 1 },
    timeout: 1,
    onInit: () =>
      options.refuse === true
        ? new MountError('no')
        : new DataMode('cached', new FakeFiles(), {
            attrChanged: () => {},
            dropPages: () => null,
          }),
  })
  const got: string[] = []
  /** What happens at each wake-up; the last one ends the loop. */
  const script: (() => void)[] = []
  const device = new Device({
    fd,
    session,
    log,
    blocking: options.blocking,
    ...(options.idle === true ? { onIdle: () => true } : {}),
    onReady: () => void got.push('ready'),
    onWake: () => {
      const step = script.shift()
      step?.()
      if (step === undefined) return true
      eventfdSignal(ops.wakeFd)
      return false
    },
  })
  const hangUp = (): void => {
    if (kernel >= 0) close(kernel)
    kernel = -1
  }
  t.teardown(() => {
    hangUp()
    close(fd)
    close(ops.wakeFd)
  })
  const send = (bytes: Buffer): void => void write(kernel, bytes, 0, bytes.length)
  const receive = (): Buffer | undefined => {
    const buf = Buffer.alloc(4096)
    const n = read(kernel, buf, 0, buf.length)
    return n < 0 ? undefined : buf.subarray(0, n)
  }
  const run = (...steps: (() => void)[]): End => {
    script.push(...steps)
    eventfdSignal(ops.wakeFd)
    return device.run()
  }
  return { device, ops, session, log, got, send, receive, run, hangUp }
}

t.test('requests are answered in order until the line ends', async t => {
  const l = line(t)
  l.send(initRequest(45))
  l.send(request(OP.UNLINK, cstr('a'), { unique: 2n }))
  l.send(request(OP.FORGET, u64(1), { unique: 4n }))
  l.send(request(OP.POLL, zeros(24), { unique: 6n }))
  const end = l.run(() => {
    t.equal(l.receive()?.length, 80)
    t.same(l.receive(), reply(zeros(0), 2n))
    t.same(l.receive(), errorReply(E.ENOSYS, 6n))
    t.equal(l.receive(), undefined)
    t.same(l.got, ['ready'])
    l.hangUp()
  })
  t.equal(end, 'aborted')
  t.same(
    l.ops.calls.map(call => call[0]),
    ['unlink', 'forget'],
  )
})

t.test('the wake-up descriptor runs callbacks, also under load', async t => {
  const l = line(t)
  l.send(initRequest(45))
  t.equal(l.run(), 'stopped')
  t.equal(l.ops.callbacks, 1)
  const busy = line(t)
  busy.send(initRequest(45))
  // Never idle: as many requests wait as a socket takes.
  for (let i = 0; i < 150; i++) busy.send(request(OP.FORGET, u64(1)))
  t.equal(busy.run(), 'stopped')
  t.ok(busy.ops.calls.length < 150, 'before they were all served')
})

t.test('INIT is refused', async t => {
  const l = line(t, { refuse: true })
  l.send(initRequest(45))
  t.throws(() => l.run(), { name: 'MountError', message: 'no' })
  t.equal(l.receive()?.readInt32LE(4), -E.EPROTO)
})

t.test('a device that cannot be read', async t => {
  const l = line(t)
  const device = new Device({
    fd: 1_000_000,
    session: l.session,
    log: l.log,
    onWake: () => true,
    onReady: () => {},
  })
  t.throws(() => device.run(), /EBADF/)
})

t.test('requests that wait', async t => {
  const l = line(t)
  const first = new FakeJob()
  const second = new FakeJob()
  const third = new FakeJob()
  l.send(initRequest(45))
  const end = l.run(
    () => {
      l.receive()
      l.ops.throws.fsync = new Pending(first, true)
      l.send(request(OP.FSYNC, zeros(16), { unique: 2n }))
    },
    () => {
      l.ops.throws.open = new Pending(second, false)
      l.send(request(OP.OPEN, join(u32(1), u32(0)), { unique: 4n }))
    },
    () => {
      t.equal(l.device.parkedCount, 2)
      t.equal(l.receive(), undefined, 'neither is answered')
      // Others go on, and must not disturb the copies.
      l.send(request(OP.UNLINK, cstr('x'.repeat(200)), { unique: 6n }))
    },
    () => {
      t.same(l.receive(), reply(zeros(0), 6n))
      first.callback?.(0)
      t.same(l.receive(), reply(zeros(0), 2n), 'answered with the result of the job')
      // The second call waits once more.
      l.ops.throws.open = new Pending(third, false)
      second.callback?.(0)
      t.equal(l.receive(), undefined)
      t.equal(l.device.parkedCount, 1)
      delete l.ops.throws.open
      third.callback?.(0)
      t.equal(l.receive()?.readBigUInt64LE(8), 4n, 'called again')
      t.same(l.ops.last?.slice(0, 1), ['open'])
      t.equal(l.device.parkedCount, 0)
    },
    () => {
      const failing = new FakeJob()
      l.ops.throws.fsync = new Pending(failing, false)
      l.send(request(OP.FSYNC, zeros(16), { unique: 8n }))
      second.callback = result => failing.callback?.(result)
    },
    () => {
      second.callback?.(-E.EIO)
      t.same(l.receive(), errorReply(E.EIO, 8n), 'a job that failed is the answer')
    },
  )
  t.equal(end, 'stopped')
})

t.test('a job whose thread died tells nobody: it is looked after', async t => {
  const l = line(t)
  l.send(initRequest(45))
  l.ops.busy = true
  let looks = 0
  l.ops.runCallbacks = () => {
    l.receive()
    if (++looks === 3) l.hangUp()
  }
  t.equal(l.device.run(), 'aborted')
  t.equal(looks, 3, 'without anything that wakes')
})

t.test('a message to the kernel that others must not overtake', async t => {
  const l = line(t)
  const order: string[] = []
  const unlink = l.ops.unlink.bind(l.ops)
  l.ops.unlink = (...args) => {
    order.push('served')
    return unlink(...args)
  }
  l.ops.telling = true
  l.ops.runCallbacks = () => {
    order.push('taken')
    l.ops.telling = false
  }
  l.send(initRequest(45))
  l.send(request(OP.UNLINK, cstr('a'), { unique: 2n }))
  l.run(() => t.strictSame(order, ['taken']))
  t.strictSame(order.slice(0, 2), ['taken', 'served'])
  // Which may wait for an answer itself.
  const late = line(t)
  late.ops.telling = true
  late.send(initRequest(45))
  late.send(request(OP.UNLINK, cstr('a'), { unique: 2n }))
  let served = 0
  late.ops.unlink = () => {
    served++
    late.hangUp()
    return 0
  }
  t.equal(late.device.run(), 'aborted')
  t.equal(served, 1, 'in the end they do')
})

/** A WRITE of one letter, 70,000 times. */
const writeOf = (text: string, unique: bigint): Buffer => {
  const data = Buffer.alloc(70_000, text)
  const head = join(u64(1), u64(0), u32(data.length), zeros(20))
  return request(OP.WRITE, join(head, data), { unique })
}

t.test('a write whose data came through a pipe', async t => {
  const l = line(t)
  const wrote = (text: string): boolean => l.ops.last?.[2] === text.repeat(70_000)
  const job = new FakeJob()
  l.send(initRequest(45))
  l.run(
    () => {
      l.receive()
      l.send(writeOf('a', 2n))
      l.send(writeOf('b', 4n))
    },
    () => {
      l.receive()
      l.receive()
      t.ok(wrote('b'))
      t.equal(l.device.intake.taken, 1)
      // It waits, and is called again when the pipe has others' data.
      l.ops.throws.write = new Pending(job, false)
      l.send(writeOf('c', 6n))
    },
    () => {
      delete l.ops.throws.write
      l.send(writeOf('d', 8n))
    },
    () => {
      t.ok(wrote('d'))
      job.callback?.(0)
      t.ok(wrote('c'), 'with its own data')
      l.receive()
      l.receive()
      l.ops.results.write = -E.ENOSPC
      l.send(writeOf('e', 10n))
    },
    () => {
      t.same(l.receive(), errorReply(E.ENOSPC, 10n))
      delete l.ops.results.write
      l.send(writeOf('f', 12n))
    },
    () => t.ok(wrote('f'), 'nothing is left of one that failed'),
  )
  t.equal(l.device.intake.taken, 5)
  l.device.intake.close()
})

/** The kernel sets the lowest bit of the unique that it interrupts. */
const interrupt = (unique: bigint): Buffer =>
  request(OP.INTERRUPT, u64(unique), { unique: unique | 1n })

t.test('interrupts', async t => {
  const l = line(t)
  const job = new FakeJob()
  const gone = 0x7fff_fff0
  l.send(initRequest(45))
  l.run(
    () => {
      l.receive()
      l.send(interrupt(2n))
      l.ops.throws.fsync = new Pending(job, true)
      l.send(request(OP.FSYNC, zeros(16), { unique: 2n, pid: process.pid }))
    },
    () => {
      l.send(interrupt(4n))
      l.send(interrupt(2n))
    },
    () => {
      t.equal(l.receive(), undefined, 'of another request, or with a signal that kills nobody')
      job.callback?.(0)
      t.same(l.receive(), reply(zeros(0), 2n))
      l.send(request(OP.FSYNC, zeros(16), { unique: 6n, pid: gone }))
    },
    () => l.send(interrupt(6n)),
    () => {
      t.same(l.receive(), errorReply(E.EINTR, 6n), 'the caller is gone')
      l.send(interrupt(6n))
    },
    () => {
      job.callback?.(0)
      t.equal(l.receive(), undefined, 'answered once')
      t.equal(l.device.parkedCount, 0)
    },
  )
})

t.test('a reply that is not taken', async t => {
  const l = line(t)
  l.send(initRequest(45))
  const big = Buffer.alloc(900_000)
  l.run(
    () => {
      l.receive()
      // A socket refuses what is longer than its buffer.
      l.ops.data = big
      const readIn = join(u64(1), u64(0), u32(big.length), zeros(20))
      l.send(request(OP.READ, readIn, { unique: 2n }))
    },
    () => {
      t.same(l.receive(), errorReply(E.EIO, 2n), 'nobody waits for ever')
      t.match(l.log.lines, [['error', /refused a reply/]])
    },
  )
})

/** A line whose other descriptor is one of a pair of its own. */
const withBell = (t: Test, { idle = false, takes = (_node: number): boolean => true } = {}) => {
  const pair = new Int32Array(2)
  socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair)
  const [fd, kernel] = [pair[0]!, pair[1]!]
  setNonblock(kernel)
  t.teardown(() => {
    close(fd)
    close(kernel)
  })
  const hung: number[] = []
  const later: number[] = []
  let busyRinging = 0
  const l = line(t, {
    idle,
    blocking: {
      fd,
      hang: node => {
        hung.push(node)
        if (takes(node)) l.send(request(OP.NOTIFY_REPLY, zeros(40)))
        return takes(node)
      },
      takeDown: () => busyRinging-- <= 0,
      later: ms => void later.push(ms),
    },
  })
  const sendBlocking = (bytes: Buffer): void => void write(kernel, bytes, 0, bytes.length)
  const receiveBlocking = (): Buffer | undefined => {
    const buf = Buffer.alloc(4096)
    const n = read(kernel, buf, 0, buf.length)
    return n < 0 ? undefined : buf.subarray(0, n)
  }
  const ringing = (times: number): void => void (busyRinging = times)
  return { ...l, hung, later, sendBlocking, receiveBlocking, ringing }
}

const NOTIFY_REPLY = request(OP.NOTIFY_REPLY, zeros(40))
const lookup = (name: string, unique: bigint): Buffer => request(OP.LOOKUP, cstr(name), { unique })

t.test('where nothing else is to be waited for, it reads without looking', async t => {
  const l = withBell(t)
  l.send(initRequest(45))
  // Only read once the other descriptor is empty, and the bell hangs.
  l.sendBlocking(request(OP.UNLINK, cstr('a'), { unique: 2n }))
  l.sendBlocking(NOTIFY_REPLY)
  l.sendBlocking(NOTIFY_REPLY)
  const end = l.run(
    () => {
      l.ops.busy = true // a job: it looks at the wake-up descriptor
    },
    () => {
      t.equal(l.receiveBlocking(), undefined)
      l.ops.busy = false
    },
    () => t.same(l.receiveBlocking(), reply(zeros(0), 2n), 'the reply goes where it came from'),
  )
  t.equal(end, 'stopped')
  t.same(l.hung, [1], 'on the root')
  t.equal(l.session.counts[OP.NOTIFY_REPLY], 0, 'is no request')
})

t.test('the bell hangs on a file where the kernel does not take the root', async t => {
  const l = withBell(t, { takes: node => node !== 1 })
  for (let i = 0; i < 6; i++) l.sendBlocking(NOTIFY_REPLY)
  l.send(initRequest(45))
  const end = l.run(
    () => {
      for (let i = 0; i < 64; i++) l.send(lookup('a', 2n))
    },
    ...Array.from({ length: 3 }, () => () => {
      while (l.receive() !== undefined);
    }),
  )
  t.equal(end, 'stopped')
  t.same(l.hung.slice(0, 2), [1, l.ops.node])
  t.equal(l.session.bellNode, l.ops.node)
})

t.test('whoever rings is let finish', async t => {
  const l = withBell(t)
  l.send(initRequest(45))
  l.ringing(3)
  t.equal(l.run(), 'stopped')
  t.equal(l.session.bellNode, 1)
})

t.test('what is due in a pause is put off where there is none', async t => {
  const l = withBell(t, { idle: true })
  l.send(initRequest(45))
  l.send(NOTIFY_REPLY)
  const forget = request(OP.FORGET, u64(1))
  for (let i = 0; i < 60; i++) l.sendBlocking(forget)
  l.sendBlocking(NOTIFY_REPLY)
  let fed = 0
  const feed = (): void => {
    for (let i = 0; i < 40 && fed < 400; i++, fed++) l.send(forget)
  }
  t.equal(l.run(...Array.from({ length: 12 }, () => feed)), 'stopped')
  t.same(l.later, [200])
})

/** Says what it is asked to. */
class FakePipe extends ReplyPipe {
  answer = 0
  stopped = false
  #loaded = false
  override takes(): boolean {
    return !this.stopped
  }
  override load(): number {
    this.#loaded = true
    return 5
  }
  override get loaded(): boolean {
    return this.#loaded
  }
  override send(_device: number, length: number): number {
    this.#loaded = false
    return this.answer < 0 ? this.answer : length
  }
  override stop(): void {
    this.stopped = true
  }
}

t.test('replies through a pipe', async t => {
  const pipe = new FakePipe()
  const l = line(t, { pipe })
  const ask = (unique: bigint): void =>
    l.send(request(OP.READ, join(u64(0x77), u64(0), u32(65536), zeros(20)), { unique }))
  const reads = (): number => l.ops.calls.filter(call => call[0] === 'read').length
  l.send(initRequest(45))
  l.run(
    () => {
      l.receive()
      ask(2n)
    },
    () => {
      t.equal(l.receive(), undefined, 'that was not written')
      pipe.answer = -E.ENOENT
      ask(4n)
    },
    () => {
      t.equal(l.receive(), undefined, 'nobody waits for it')
      t.notOk(pipe.stopped)
      t.equal(reads(), 0)
      pipe.answer = -E.EINVAL
      ask(6n)
    },
    () => {
      t.same(l.receive(), reply(l.ops.data, 6n), 'it is answered all the same')
      t.ok(pipe.stopped)
      t.match(l.log.lines.at(-1), ['warn', /pipe/, { errno: 'EINVAL' }])
      l.ops.results.realFile = -E.EBADF
      pipe.stopped = false
      ask(8n)
    },
    () => {
      t.same(l.receive(), reply(l.ops.data, 8n), 'what has no file is read as ever')
      t.equal(reads(), 2)
    },
  )
})

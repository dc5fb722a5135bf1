/**
 * The loop and its connections. Pairs of sockets that preserve message boundaries replace
 * /dev/fuse.
 */

import { handlers } from '../../../../src/fuse/session/handlers.js'
// oxlint-disable-next-line no-restricted-imports -- the test's own end of the line
import koffi from 'koffi'
import t, { type Test } from 'tap'
import { Pending, type Job } from '../../../../src/overlay/ops.js'
import { E } from '../../../../src/sys/errno.js'
import { close, eventfd, eventfdSignal, read, setNonblock, write } from '../../../../src/sys/io.js'
import { pipe as makePipe } from '../../../../src/sys/splice.js'
import { Connection, type End } from '../../../../src/fuse/session/connection.js'
import { IoModes } from '../../../../src/fuse/session/io-mode.js'
import { Loop } from '../../../../src/fuse/device/loop.js'
import { Session } from '../../../../src/fuse/session/session.js'
import { MountError } from '../../../../src/errors.js'
import { ReplyPipe } from '../../../../src/fuse/device/splice-read.js'
import { Reply, Request } from '../../../../src/fuse/protocol/wire.js'
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
} from '../../../helpers/frames.js'
import { FakeFiles, initRequest, recordingLog } from '../support.js'

const socketpair = koffi.load('libc.so.6').func('int socketpair(int, int, int, int *)')
const AF_UNIX = 1
const SOCK_SEQPACKET = 5

class FakeJob implements Job {
  callback: ((result: number) => void) | undefined
  onDone(callback: (result: number) => void): void {
    this.callback = callback
  }
}

/** The same sizes as in a union's thread. */
const SIZE = 1024 * 1024 + 64 * 1024

interface Options {
  refuse?: boolean
  pipe?: ReplyPipe
  /** Shares the loop of another line. */
  loop?: Loop
}

const line = (t: Test, options: Options = {}) => {
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
    handlers,
    ops,
    ...(options.pipe === undefined ? {} : { pipe: options.pipe }),
    reply: new Reply(SIZE),
    log,
    initConfig: { io: 'cached', writeback: false, stackDepth: 1 },
    timeout: 1,
    onInit: () =>
      options.refuse === true
        ? new MountError('no')
        : new IoModes('cached', new FakeFiles(), {
            attrChanged: () => {},
            dropPages: () => null,
            forgetNodes: () => null,
          }),
  })
  const got: string[] = []
  /** The steps, one for each wakeup; after the last one the loop ends. */
  const script: (() => void)[] = []
  let scripted = false
  let end: End | undefined
  const loop = options.loop ?? new Loop(() => {})
  const connection = new Connection({
    fd,
    session,
    request: new Request(SIZE),
    log,
    onReady: () => void got.push('ready'),
    onEnd: how => {
      end = how
    },
  })
  // The next step follows when the requests of this one were served.
  const wakeSoon = (): void => loop.after(1, () => eventfdSignal(ops.wakeFd))
  const called = ops.runCallbacks.bind(ops)
  ops.runCallbacks = () => {
    called()
    if (!scripted) return
    const step = script.shift()
    step?.()
    if (step === undefined) loop.end(connection)
    else wakeSoon()
  }
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
  /** Serves without a script. */
  const serve = (): End => {
    loop.add(connection)
    loop.run()
    if (end instanceof Error) throw end
    return end!
  }
  const run = (...steps: (() => void)[]): End => {
    script.push(...steps)
    scripted = true
    wakeSoon()
    return serve()
  }
  const ended = (): End | undefined => end
  return {
    loop,
    connection,
    ops,
    session,
    log,
    got,
    send,
    receive,
    run,
    serve,
    ended,
    hangUp,
  }
}

t.test('requests are answered in order until the connection ends', async t => {
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

t.test('the wakeup descriptor runs callbacks, also under load', async t => {
  const l = line(t)
  l.send(initRequest(45))
  t.equal(l.run(), 'stopped')
  t.equal(l.ops.callbacks, 1)
  const busy = line(t)
  busy.send(initRequest(45))
  // As many requests as a socket holds.
  for (let i = 0; i < 150; i++) busy.send(request(OP.FORGET, u64(1)))
  eventfdSignal(busy.ops.wakeFd)
  t.equal(busy.run(), 'stopped')
  t.ok(busy.ops.calls.length < 150, 'before they were all served')
})

t.test('INIT is refused', async t => {
  const l = line(t, { refuse: true })
  l.send(initRequest(45))
  t.throws(() => l.run(), { name: 'MountError', message: 'no' })
  t.equal(l.receive()?.readInt32LE(4), -E.EPROTO)
})

t.test('a connection that cannot be read', async t => {
  const l = line(t)
  let end: End | undefined
  const { loop, session, log } = l
  const buffer = new Request(SIZE)
  const onEnd = (how: End): void => {
    end = how
  }
  // The write end of a pipe.
  const ends = makePipe()
  if (typeof ends === 'number') throw new Error(`pipe: ${ends}`)
  t.teardown(() => ends.forEach(fd => close(fd)))
  const [, into] = ends
  loop.add(new Connection({ fd: into, session, request: buffer, log, onReady: () => {}, onEnd }))
  loop.run()
  t.match(end, { message: /EBADF/ })
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
      t.equal(l.connection.parkedCount, 2)
      t.equal(l.receive(), undefined, 'neither is answered')
      // Other requests must not disturb the copies.
      l.send(request(OP.UNLINK, cstr('x'.repeat(200)), { unique: 6n }))
    },
    () => {
      t.same(l.receive(), reply(zeros(0), 6n))
      first.callback?.(0)
      t.same(l.receive(), reply(zeros(0), 2n), 'answered with the result of the job')
      // The second attempt waits again.
      l.ops.throws.open = new Pending(third, false)
      second.callback?.(0)
      t.equal(l.receive(), undefined)
      t.equal(l.connection.parkedCount, 1)
      delete l.ops.throws.open
      third.callback?.(0)
      t.equal(l.receive()?.readBigUInt64LE(8), 4n, 'called again')
      t.same(l.ops.last?.slice(0, 1), ['open'])
      t.equal(l.connection.parkedCount, 0)
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

t.test('a job whose thread died sends no message: a timer checks it', async t => {
  const l = line(t)
  l.send(initRequest(45))
  l.ops.busy = true
  let looks = 0
  l.ops.runCallbacks = () => {
    l.receive()
    if (++looks === 3) l.hangUp()
  }
  t.equal(l.serve(), 'aborted')
  t.equal(looks, 3, 'without anything that wakes')
})

t.test('a notification that requests must not overtake', async t => {
  const l = line(t)
  const order: string[] = []
  const unlink = l.ops.unlink.bind(l.ops)
  l.ops.unlink = (...args) => {
    order.push('served')
    return unlink(...args)
  }
  l.ops.notifying = true
  const called = l.ops.runCallbacks.bind(l.ops)
  l.ops.runCallbacks = () => {
    order.push('taken')
    l.ops.notifying = false
    called()
  }
  l.send(initRequest(45))
  l.send(request(OP.UNLINK, cstr('a'), { unique: 2n }))
  l.run(() => t.strictSame(order, ['taken']))
  t.strictSame(order.slice(0, 2), ['taken', 'served'])
  // The notification may itself wait for an answer.
  const late = line(t)
  late.ops.notifying = true
  late.send(initRequest(45))
  late.send(request(OP.UNLINK, cstr('a'), { unique: 2n }))
  let served = 0
  late.ops.unlink = () => {
    served++
    late.hangUp()
    return 0
  }
  t.equal(late.serve(), 'aborted')
  t.equal(served, 1, 'in the end they do')
})

/** A WRITE of one letter, 70,000 times. */
const writeOf = (text: string, unique: bigint): Buffer => {
  const data = Buffer.alloc(70_000, text)
  const head = join(u64(1), u64(0), u32(data.length), zeros(20))
  return request(OP.WRITE, join(head, data), { unique })
}

t.test('a write that waits keeps its data', async t => {
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
      // It waits, and is retried when the buffer holds other data.
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
      t.equal(l.connection.parkedCount, 0)
    },
  )
})

t.test('a reply that the kernel refuses', async t => {
  const l = line(t)
  l.send(initRequest(45))
  const big = Buffer.alloc(900_000)
  l.run(
    () => {
      l.receive()
      // A socket refuses a message that is longer than its buffer.
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

t.test('several connections: each is served in turn, and ends independently', async t => {
  const a = line(t)
  const b = line(t, { loop: a.loop })
  const c = line(t, { loop: a.loop, refuse: true })
  const order: string[] = []
  a.ops.forget = () => void order.push('a')
  b.ops.unlink = () => {
    order.push('b')
    // An operation that throws is answered, too.
    throw new Error('a fault')
  }
  for (const each of [a, b, c]) each.send(initRequest(45))
  // As many requests as a socket holds.
  for (let i = 0; i < 150; i++) a.send(request(OP.FORGET, u64(1)))
  b.send(request(OP.UNLINK, cstr('x'), { unique: 2n }))
  for (const each of [a, b, c]) each.loop.add(each.connection)
  a.loop.after(20, () => {
    for (const each of [a, b]) {
      while (each.receive() !== undefined);
      each.hangUp()
    }
  })
  a.loop.run()
  t.equal(order.filter(one => one === 'a').length, 150)
  t.ok(order.indexOf('b') < 100, 'before all others of the first')
  t.same([a.ended(), b.ended()], ['aborted', 'aborted'])
  t.match(c.ended(), { name: 'MountError' })
  t.equal(a.loop.size, 0)
})

t.test('a held connection does not block the others', async t => {
  const a = line(t)
  const b = line(t, { loop: a.loop })
  const order: string[] = []
  a.ops.notifying = true
  a.ops.unlink = () => (order.push('a'), a.hangUp(), 0)
  b.ops.unlink = () => (order.push('b'), b.hangUp(), 0)
  for (const each of [a, b]) {
    each.send(initRequest(45))
    each.send(request(OP.UNLINK, cstr('x'), { unique: 2n }))
    each.loop.add(each.connection)
  }
  a.loop.run()
  t.same(order, ['b', 'a'])
})

t.test('a timer does not keep the loop running', async t => {
  const l = line(t)
  let late = false
  l.send(initRequest(45))
  l.loop.after(250_000, () => {
    late = true
  })
  l.loop.after(5, () => l.loop.end(l.connection))
  t.equal(l.serve(), 'stopped')
  t.notOk(late)
})

t.test('messages for the loop, and timers', async t => {
  let messages = 0
  let woken = false
  const loop = new Loop(() => {
    messages++
    if (woken) loop.end(l.connection)
  })
  const l = line(t, { loop })
  l.send(initRequest(45))
  loop.after(5, () => {
    woken = true
    eventfdSignal(loop.wakeFd)
  })
  t.equal(l.serve(), 'stopped')
  t.equal(messages, 2, 'at its start, and when it was woken')
  loop.run()
  t.equal(messages, 3)
})

/** Returns the values that the test sets. */
class FakePipe extends ReplyPipe {
  answer = 0
  stopped = false
  #loaded = false
  override accepts(): boolean {
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

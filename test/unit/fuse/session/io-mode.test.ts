import * as fc from 'fast-check'
import t from 'tap'
import { Opened } from '../../../../src/overlay/ops.js'
import { IoModes, IdleIds } from '../../../../src/fuse/session/io-mode.js'
import type { IoMode } from '../../../../src/fuse/protocol/init.js'
import { FakeFiles } from '../support.js'

// open_flags of the protocol
const DIRECT = 1
const KEEP = 2
const THROUGH = 128

const RDONLY = 0o100000
const WRONLY = 0o100001
const RDWR = 0o100002

const make = (io: IoMode = 'passthrough', idle = new IdleIds()) => {
  const backing = new FakeFiles()
  const changed: number[] = []
  const notifier = {
    attrChanged: (node: number) => void changed.push(node),
    dropPages: () => null,
    forgetNodes: () => null,
  }
  const mode = new IoModes(io, backing, notifier, undefined, idle)
  let nextFh = 1
  const open = (node: number, about: Partial<Opened>, flags = RDONLY, created = false) => {
    const opened = Object.assign(new Opened(), { fd: 100 + nextFh, fh: nextFh++ }, about)
    const fopen = mode.open(node, opened, flags, created)
    return { fh: opened.fh, fopen, id: mode.backingId }
  }
  const close = (node: number, fh: number): void => {
    mode.release(node, fh)
    mode.released(node)
  }
  return { mode, backing, changed, open, close }
}

const LOWER = { upper: false }
const FIXED = { upper: false, stable: true }
const UPPER = { upper: true, stable: true }
const UPPER_W = { upper: true, stable: true, writable: true }
const SETID_W = { upper: true, stable: true, writable: true, privileged: true }

t.test('cached mode: the page cache is always kept', async t => {
  const { mode, backing, changed, open } = make('cached')
  for (const about of [LOWER, UPPER, UPPER_W, SETID_W]) {
    for (const flags of [RDONLY, WRONLY, RDWR]) {
      const { fopen, id, fh } = open(1, about, flags)
      t.same([fopen, id], [KEEP, 0])
      mode.release(1, fh)
    }
  }
  t.same(backing.log, [])
  t.same(changed, [])
  t.equal(mode.handleCount, 0)
  t.equal(mode.attrsVolatile(1), false)
})

t.test(
  'passthrough mode: a descriptor that can only be read needs no other to make an id',
  async t => {
    for (const [about, writable] of [
      [UPPER, false],
      [UPPER_W, true],
      [{ ...UPPER_W, onlyReads: true }, false],
    ] as const) {
      const { open, backing } = make()
      open(1, about, WRONLY)
      t.equal(backing.lastWritable, writable)
    }
  },
)

t.test('passthrough mode: the first open', async t => {
  for (const [name, about, flags, want] of [
    ['a lower file', LOWER, RDONLY, KEEP],
    ['a lower file that is never copied up', FIXED, RDONLY, THROUGH],
    ['an upper file for reading', UPPER, RDONLY, THROUGH],
    ['an upper file for writing', UPPER_W, WRONLY, THROUGH],
    ['an upper file for both', UPPER_W, RDWR, THROUGH],
    ['a set-id file for reading', { upper: true, stable: true, privileged: true }, RDONLY, THROUGH],
    ['a set-id file for writing', SETID_W, WRONLY, THROUGH | DIRECT],
    ['without a descriptor', { upper: true, stable: true, fd: -1 }, RDONLY, 0],
  ] as const) {
    const { open, backing, mode } = make()
    const { fopen, id, fh } = open(1, about, flags)
    t.equal(fopen, want, name)
    const through = (want & THROUGH) !== 0
    t.equal(id, through ? 1 : 0, 'backing id')
    t.same(backing.log, through ? ['open 101'] : [])
    mode.release(1, fh)
    mode.forget(1)
    t.same(backing.log, through ? ['open 101', 'close 1'] : [])
    t.same([mode.nodeCount, mode.handleCount], [0, 0])
  }
})

t.test('a handle without a descriptor gets one if it needs a backing id', async t => {
  const backing = new FakeFiles()
  const asked: number[] = []
  const notifier = { attrChanged: () => {}, dropPages: () => null, forgetNodes: () => null }
  const mode = new IoModes('passthrough', backing, notifier, fh => (asked.push(fh), 500 + fh))
  const open = (node: number, fh: number, about: Partial<Opened>, flags = RDONLY): number =>
    mode.open(node, Object.assign(new Opened(), { fd: -1, fh }, about), flags, false)
  t.equal(open(1, 1, LOWER), KEEP)
  t.same(asked, [], 'the page cache needs none')
  t.equal(open(2, 2, UPPER), THROUGH)
  t.same([asked, backing.log], [[2], ['open 502']])
  mode.release(2, 2)
  t.equal(open(2, 3, UPPER), THROUGH)
  t.same(asked, [2], 'nor does an id that was kept')
  t.equal(open(2, 4, { ...UPPER_W, fd: 100 }, RDWR), THROUGH)
  mode.release(2, 4)
  t.same(backing.probes, ['reopen 100'])
  mode.release(2, 3)
  t.same(backing.probes, ['reopen 100', 'reopen 503'], 'and to look for who writes one is opened')
})

t.test('all passthrough handles of a node share one id', async t => {
  const { mode, backing, open } = make()
  const a = open(1, UPPER_W, WRONLY)
  const b = open(1, UPPER)
  const c = open(1, SETID_W, RDWR)
  const other = open(2, UPPER)
  t.same([a.id, b.id, c.id, other.id], [1, 1, 1, 2])
  t.same([a.fopen, b.fopen, c.fopen], [THROUGH, THROUGH, THROUGH | DIRECT])
  mode.release(1, a.fh)
  mode.release(1, c.fh)
  t.same(backing.log, ['open 101', 'open 104'])
  mode.release(1, b.fh)
  const again = open(1, UPPER)
  t.equal(again.id, 1, 'also afterwards')
  mode.forget(1)
  t.same(backing.log, ['open 101', 'open 104'], 'it is in use')
  mode.release(1, again.fh)
  mode.forget(1)
  mode.forget(1)
  t.same(backing.log, ['open 101', 'open 104', 'close 1'])
  t.equal(open(1, UPPER).id, 3, 'a new one for what comes then')
})

t.test('the number of idle ids is limited', async t => {
  const { mode, backing, open } = make()
  for (let node = 1; node <= 4200; node++) mode.release(node, open(node, UPPER).fh)
  t.equal(backing.log.filter(entry => entry.startsWith('open')).length, 4200)
  t.same(
    backing.log.filter(entry => entry.startsWith('close')),
    Array.from({ length: 104 }, (_, i) => `close ${i + 1}`),
    'the longest unused go first',
  )
  t.equal(open(4200, UPPER).id, 4200)
  t.equal(open(1, UPPER).id, 4201)
})

t.test('unions of a thread share the limit of idle ids', async t => {
  const idle = new IdleIds(3)
  const [one, other, ended] = [
    make('passthrough', idle),
    make('passthrough', idle),
    make('passthrough', idle),
  ]
  const use = ({ open, close }: typeof one, node: number): void => close(node, open(node, UPPER).fh)
  use(one, 1)
  use(one, 2)
  use(other, 1)
  use(one, 1)
  t.same(other.backing.log, ['open 101'])
  use(other, 2)
  t.same(one.backing.log, ['open 101', 'open 102', 'close 2'], 'the longest unused of all')
  other.mode.close()
  t.same(other.backing.log, ['open 101', 'open 102'], 'its connection has closed them')
  for (const node of [1, 2, 3]) use(ended, node)
  t.same(one.backing.log.at(-1), 'close 1', 'and others have the room')
  t.same(ended.backing.log, ['open 101', 'open 102', 'open 103'])
})

t.test('while a cached handle is open, every open is cached', async t => {
  const { mode, backing, open } = make()
  const lower = open(1, LOWER)
  // The first open for writing copies it up.
  const a = open(1, UPPER_W, RDWR)
  const b = open(1, SETID_W, WRONLY)
  t.same([lower.fopen, a.fopen, b.fopen], [KEEP, KEEP, KEEP])
  mode.release(1, lower.fh)
  t.equal(open(1, UPPER).fopen, KEEP)
  t.same(backing.log, [])
  for (const fh of [a.fh, b.fh, 4]) mode.release(1, fh)
  t.equal(open(1, UPPER).fopen, THROUGH, 'and then no longer')
})

t.test('the kernel gives no id', async t => {
  const { mode, backing, open } = make()
  backing.next = -1
  const a = open(1, UPPER_W, WRONLY)
  t.same([a.fopen, a.id], [0, 0], 'cached, but nothing from before is kept')
  t.equal(open(1, UPPER).fopen, KEEP)
  mode.release(1, a.fh)
  mode.release(1, 2)
  t.same([mode.nodeCount, mode.handleCount], [0, 0])
  backing.next = 5
  t.equal(open(1, UPPER).id, 5)
})

t.test('O_TMPFILE, if the kernel cannot open the real file with it', async t => {
  const O_TMPFILE = 0o20200000
  for (const opensUnnamed of [true, false]) {
    const { open, backing, close } = make()
    backing.opensUnnamed = opensUnnamed
    const made = open(1, UPPER_W, RDWR | O_TMPFILE, true)
    t.equal((made.fopen & THROUGH) !== 0, opensUnnamed)
    const again = open(1, UPPER_W, RDWR)
    t.equal(again.fopen & THROUGH, made.fopen & THROUGH, 'as all others while it is open')
    for (const { fh } of [made, again]) close(1, fh)
    t.equal(open(1, UPPER_W, RDWR).fopen & THROUGH, THROUGH, 'it has a name by now')
  }
})

t.test('O_DIRECT, if the real file does not support it', async t => {
  const { backing, open, mode } = make()
  backing.direct = false
  const O_DIRECT = process.arch === 'arm64' ? 0o200000 : 0o40000
  t.equal(open(1, UPPER, O_DIRECT).fopen, -22)
  t.equal(open(1, LOWER, O_DIRECT).fopen, KEEP)
  t.equal(open(2, UPPER).fopen, THROUGH)
  backing.direct = true
  t.equal(open(2, UPPER, O_DIRECT).fopen, THROUGH)
  t.equal(mode.handleCount, 3)

  const notifier = { attrChanged: () => {}, dropPages: () => null, forgetNodes: () => null }
  const noFd = new IoModes('passthrough', backing, notifier, () => -24)
  const opened = Object.assign(new Opened(), { fd: -1, fh: 1 }, UPPER)
  t.equal(noFd.open(3, opened, O_DIRECT, false), -24, 'EMFILE, where it cannot even be opened')
})

t.test('attributes while a mapping may change them', async t => {
  const { mode, changed, backing, open, close } = make()
  const w = open(1, UPPER_W, WRONLY)
  t.equal(mode.attrsVolatile(1), false, 'a write-only handle cannot be mapped')
  t.same(changed, [])
  const a = open(1, UPPER_W, RDWR)
  t.same(changed, [1])
  const b = open(1, UPPER_W, RDWR)
  t.same(changed, [1], 'once')
  t.equal(mode.attrsVolatile(1), true)
  t.equal(mode.attrsVolatile(2), false)
  close(1, a.fh)
  t.equal(mode.attrsVolatile(1), true)
  t.same(backing.probes, [])
  backing.written = true
  close(1, b.fh)
  t.same(backing.probes, ['reopen 103', 'written 1103?'], 'asked after the last')
  t.equal(mode.attrsVolatile(1), true, 'the write-only handle, or a mapping')
  backing.written = false
  close(1, w.fh)
  t.equal(mode.attrsVolatile(1), false, 'and again')
  open(3, UPPER_W, RDWR, true)
  t.same(changed, [1], 'not for a file just created: its attributes go with the same reply')
  t.equal(mode.attrsVolatile(3), true)
  mode.forget(3)
  t.equal(mode.attrsVolatile(3), true, 'it is open')
})

t.test('a mapping that stays until the node is forgotten', async t => {
  const { mode, changed, backing, open, close } = make()
  backing.written = true
  close(1, open(1, UPPER_W, RDWR).fh)
  t.equal(mode.attrsVolatile(1), true)
  close(1, open(1, UPPER_W, RDWR).fh)
  t.same(changed, [1], 'the kernel caches nothing that would have to be dropped')
  mode.forget(1)
  t.equal(mode.attrsVolatile(1), false)
})

t.test('a handle that was never opened', async t => {
  const { mode, open } = make()
  mode.release(1, 99)
  const a = open(1, UPPER)
  mode.release(2, a.fh)
  mode.release(1, 99)
  t.equal(mode.nodeCount, 1)
})

/** The checks of fs/fuse/iomode.c. */
class Kernel {
  readonly #nodes = new Map<number, { cached: number; through: number; id: number }>()
  open(node: number, fopen: number, id: number, ids: ReadonlySet<number>): string | undefined {
    let n = this.#nodes.get(node)
    if (n === undefined) this.#nodes.set(node, (n = { cached: 0, through: 0, id: 0 }))
    if ((fopen & THROUGH) !== 0) {
      if ((fopen & KEEP) !== 0) return 'EINVAL: KEEP_CACHE'
      if (!ids.has(id)) return 'ENOENT: no such id'
      if (n.through > 0 && n.id !== id) return 'EBUSY: another id'
      if (n.cached > 0) return 'ETXTBSY: cached'
      n.through++
      n.id = id
    } else {
      if (n.through > 0) return 'EINVAL: passthrough'
      n.cached++
    }
    return undefined
  }
  release(node: number, fopen: number): void {
    const n = this.#nodes.get(node)!
    if ((fopen & THROUGH) !== 0) n.through--
    else n.cached--
  }
}

t.test('no sequence of opens breaks a rule of the kernel', async t => {
  const step = fc.record({
    node: fc.integer({ min: 1, max: 3 }),
    close: fc.boolean(),
    forget: fc.boolean(),
    which: fc.nat(),
    flags: fc.constantFrom(RDONLY, WRONLY, RDWR),
    privileged: fc.boolean(),
    refuse: fc.integer({ min: 0, max: 9 }),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), steps => {
      const kernel = new Kernel()
      const { mode, backing, open } = make()
      const ids = new Set<number>()
      const copiedUp = new Set<number>()
      const handles: { node: number; fh: number; fopen: number }[] = []
      let next = 1
      for (const s of steps) {
        if (s.close && handles.length > 0) {
          const [h] = handles.splice(s.which % handles.length, 1)
          // The kernel changes the inode's io mode before it sends the RELEASE.
          kernel.release(h!.node, h!.fopen)
          mode.release(h!.node, h!.fh)
          if (s.forget) mode.forget(h!.node)
        } else {
          const writable = s.flags !== RDONLY
          if (writable) copiedUp.add(s.node)
          const upper = copiedUp.has(s.node)
          backing.next = s.refuse === 0 ? -12 : next
          const got = open(s.node, { upper, writable, privileged: s.privileged }, s.flags)
          if (backing.next > next) next = backing.next
          for (const line of backing.log.splice(0)) {
            if (line.startsWith('close')) ids.delete(Number(line.slice(6)))
          }
          if (got.id > 0) ids.add(got.id)
          if (got.id > 0 && !upper) return false
          const refusal = kernel.open(s.node, got.fopen, got.id, ids)
          if (refusal !== undefined) return false
          handles.push({ node: s.node, fh: got.fh, fopen: got.fopen })
        }
        for (const line of backing.log.splice(0)) {
          if (line.startsWith('close')) ids.delete(Number(line.slice(6)))
        }
      }
      for (const h of handles) mode.release(h.node, h.fh)
      for (const node of [1, 2, 3]) mode.forget(node)
      for (const line of backing.log) ids.delete(Number(line.slice(6)))
      if (ids.size > 0) return false
      return mode.nodeCount === 0 && mode.handleCount === 0
    }),
    { numRuns: 2000 },
  )
  t.pass()
})

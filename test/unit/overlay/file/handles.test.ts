import * as fs from 'node:fs'

import * as fc from 'fast-check'
import t from 'tap'

import { FileHandle } from '../../../../src/overlay/inode/node.js'
import {
  HandleTable,
  openFile,
  readFile,
  realFlags,
  flushKernelPages,
  statOpen,
  syncFd,
  writeFile,
  writeLate,
  writersFd,
} from '../../../../src/overlay/file/handles.js'
import { copyFileRange, fallocateFile } from '../../../../src/overlay/file/ranges.js'
import type { IoTask } from '../../../../src/overlay/jobs/task.js'
import { Node, Protect } from '../../../../src/overlay/inode/node.js'
import {
  Attr,
  Entry,
  Opened,
  SetAttr,
  SetAttrValid,
  type Notifier,
} from '../../../../src/overlay/ops.js'
import type { Union } from '../../../../src/overlay/namei/context.js'
import { E } from '../../../../src/sys/errno.js'
import { Stat } from '../../../../src/sys/stat.js'
import { CAP, withCaller } from '../../../helpers/callers.js'
import { PAST, file, scratch, unionDirectories } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { openFds, optionsOf } from '../../../helpers/union.js'
import { pendingOf, skipUnions, stateOf } from '../support.js'

const { O } = sys
/** O_ACCMODE of an open file. */
const accessOf = (fd: number): number =>
  Number.parseInt(
    /^flags:\s*(\d+)/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '',
    8,
  ) & 3
const nodeOf = (): Node => new Node(2, sys.S.IFREG, 1)
/** A union of which the tested code uses only `parts`. */
const unionOf = (parts: object): Union => parts as Union
const NONE = unionOf({})

const open = (): number => fs.openSync('/dev/null', 'r')

t.test('the table: a number is never reused, and a removed handle is closed', async t => {
  const before = openFds()
  const table = new HandleTable()
  const node = nodeOf()
  const a = table.add(node, open(), false)
  const b = table.add(node, open(), true)
  t.strictSame(new Set([a.fh, b.fh, 0]).size, 3)
  t.strictSame(node.handles, [b, a], 'a writer first')
  t.equal(table.get(b.fh), b)
  t.equal(table.remove(a.fh), a)
  t.equal(table.remove(a.fh), undefined, 'once')
  t.strictSame(node.handles, [b])
  table.remove(b.fh)
  t.equal(node.handles, null)
  t.strictSame(openFds(), before)
  const c = table.add(node, open(), false)
  table.add(node, open(), false)
  t.ok(c.fh > b.fh)
  t.equal(table.size, 2)
  table.closeAll()
  t.equal(table.size, 0)
  t.strictSame(openFds(), before)
})

t.test("a real file is opened with the caller's flags, except those already handled", async () => {
  const done = O.CREAT | O.EXCL | O.TRUNC | O.APPEND | O.DIRECT
  const bit = fc.constantFrom(O.CREAT, O.EXCL, O.TRUNC, O.APPEND, O.DIRECT, O.DSYNC, O.NOATIME)
  fc.assert(
    fc.property(fc.constantFrom(0, 1, 2), fc.array(bit), fc.boolean(), (mode, bits, writeback) => {
      const flags = bits.reduce<number>((all, one) => all | one, mode)
      const real = realFlags(unionOf({ writeback }), flags)
      const access = writeback && mode === O.WRONLY ? O.RDWR : mode
      return (real & 3) === access && (real & ~3) === (flags & ~3 & ~done)
    }),
  )
})

/** A handle of a new file. */
const handleOf = (t: Parameters<typeof scratch>[0], text: string, mode = 'r+'): FileHandle => {
  const path = `${scratch(t)}/f`
  fs.writeFileSync(path, text)
  sys.utimensat(sys.AT_FDCWD, path, PAST, PAST, 0)
  const table = new HandleTable()
  t.teardown(() => table.closeAll())
  return table.add(nodeOf(), fs.openSync(path, mode), mode !== 'r')
}
const mtimeOf = ({ fd }: FileHandle): bigint => (sys.fstat(fd) as sys.Stat).mtime
const LONG_AGO = BigInt(PAST.sec) * 1_000_000_000n + BigInt(PAST.nsec)

t.test('a read is short only at the end', async t => {
  const handle = handleOf(t, 'abcdef')
  const buf = Buffer.alloc(10, '.')
  t.equal(readFile(NONE, handle, buf, 2, 3, 1), 3)
  t.equal(buf.latin1Slice(), '..bcd.....')
  t.equal(readFile(NONE, handle, buf, 0, 10, 4), 2)
  t.equal(readFile(NONE, handle, buf, 0, 10, 2 ** 40), 0)
  t.equal(readFile(NONE, new FileHandle(9, handle.node, 1 << 20, false), buf, 0, 1, 0), -E.EBADF)
})

t.test('with write-back the kernel sends the mtime, without it a late write sets it', async t => {
  for (const [writeback, late] of [
    [false, true],
    [true, false],
    [false, false],
  ] as const) {
    const handle = handleOf(t, 'abcdef')
    const u = unionOf({ writeback })
    t.equal((late ? writeLate : writeFile)(u, handle, Buffer.from('XY'), 0, 2, 1, null), 2)
    t.equal(mtimeOf(handle) === LONG_AGO, writeback)
    t.equal(fallocateFile(u, handle, 0, 0, 100), 0)
    t.equal(mtimeOf(handle) === LONG_AGO, writeback, 'making room is not late')
    t.equal(copyFileRange(u, handle, 0, handle, 50, 2), 2)
    t.equal(mtimeOf(handle) === LONG_AGO, writeback)
  }
})

t.test(
  'a late write leaves set-id bits, whatever the server may',
  { skip: skipUnions },
  async t => {
    const lacking = { name: '', uid: 0, gid: 0, groups: [], lacks: [CAP.FSETID] }
    for (const late of [true, false])
      for (const writeback of [true, false]) {
        const handle = handleOf(t, 'abcdef')
        fs.fchmodSync(handle.fd, 0o6755)
        const u = unionOf({ writeback })
        withCaller(lacking, () => {
          t.equal((late ? writeLate : writeFile)(u, handle, Buffer.from('XY'), 0, 2, 1, null), 2)
        })
        t.equal(fs.fstatSync(handle.fd).mode & 0o7777, late ? 0o6755 : 0o755)
        t.equal(mtimeOf(handle) === LONG_AGO, writeback)
      }
  },
)

t.test('a refused call changes nothing', async t => {
  const u = unionOf({ writeback: false })
  const reader = handleOf(t, 'r', 'r')
  t.equal(fallocateFile(u, reader, 0, 0, 10), -E.EBADF)
  t.equal(copyFileRange(u, reader, 0, reader, 10, 1), -E.EBADF)
  const handle = handleOf(t, 'abc')
  handle.node.protect = Protect.APPEND
  t.equal(fallocateFile(u, handle, sys.FALLOC.PUNCH_HOLE | 1, 0, 3), -E.EPERM)
  t.equal(fallocateFile(u, handle, 0, 0, 10), 0, 'it may grow')
  handle.node.protect = Protect.IMMUTABLE
  t.equal(fallocateFile(u, handle, 0, 0, 20), -E.EPERM)
  t.equal(copyFileRange(u, reader, 0, handle, 0, 1), -E.EPERM)
  t.equal((sys.fstat(handle.fd) as sys.Stat).size, 10)
})

t.test('syncing waits, unless it is free', async t => {
  const asked: IoTask[] = []
  const job = { onDone: () => {} }
  const end: (() => void)[] = []
  const pool = {
    submit: (task: IoTask, _done: unknown, abandon: () => void) => {
      asked.push(task)
      end.push(abandon)
      return job
    },
  }
  const before = openFds()
  const fd = open()
  t.equal(syncFd(unionOf({ syncIsFree: true, pool }), fd, true), 0)
  const pending = pendingOf(() => syncFd(unionOf({ syncIsFree: false, pool }), fd, true))
  t.match(asked, [{ kind: 'fsync', datasync: true }])
  t.strictSame([pending.job, pending.answer], [job, true])
  fs.closeSync(fd)
  const [task] = asked
  t.ok(task?.kind === 'fsync' && sys.fstat(task.fd) !== -E.EBADF, 'by a descriptor of its own')
  end[0]?.()
  t.strictSame(openFds(), before)
})

t.test('pages are written back once, if a writer exists', async t => {
  const handle = handleOf(t, 'x')
  const { node } = handle
  const message = { fd: 9, bytes: Uint8Array.of(1) }
  const finish: (() => number)[] = []
  const notifier: Pick<Notifier, 'dropPages'> = { dropPages: () => message }
  const pool = {
    submit: (task: IoTask, done: () => number) => {
      t.strictSame(task, { kind: 'write', ...message })
      finish.push(done)
      return { onDone: () => {} }
    },
  }
  const u = unionOf({ writeback: true, notifier, pool })
  flushKernelPages(unionOf({ writeback: false }), node)
  flushKernelPages(u, nodeOf())
  t.equal(finish.length, 0, 'nothing to write back')
  t.equal(pendingOf(() => flushKernelPages(u, node)).answer, false)
  t.equal(finish[0]?.(), 0)
  flushKernelPages(u, node) // the second try
  t.equal(
    pendingOf(() => flushKernelPages(u, node)).answer,
    false,
    'and the next operation asks anew',
  )
  flushKernelPages(unionOf({ writeback: true, notifier: { dropPages: () => null } }), node)
})

t.test(
  'an open for reading opens no real file before the first read',
  { skip: skipUnions },
  async t => {
    const { u, ops, find } = stateOf(
      t,
      optionsOf(unionDirectories(t, { lower: [{ f: 'lower', g: 'gone', m: 'more' }] }), {
        volatile: true,
      }),
    )
    const table = new HandleTable()
    const out = new Opened()
    const opened = (name: string, flags: number): FileHandle => {
      t.equal(openFile(u, table, find(name), flags, null, out), 0)
      return table.get(out.fh) as FileHandle
    }
    const text = (handle: FileHandle): string => {
      const buf = Buffer.alloc(20)
      return buf.latin1Slice(0, readFile(u, handle, buf, 0, 20, 0))
    }
    const [f, again, g] = [opened('f', O.RDONLY), opened('f', O.RDONLY), opened('g', O.RDONLY)]
    t.strictSame([f.fd, again.fd, g.fd], [-1, -1, -1])
    t.equal(text(f), 'lower')
    t.ok(f.fd >= 0)
    // The node is copied up while one handle has a descriptor and the other has none.
    const writer = opened('f', O.RDWR)
    t.equal(writeFile(u, writer, Buffer.from('UP'), 0, 2, 0, null), 2)
    t.strictSame([text(f), text(again)], ['UPwer', 'UPwer'])
    // The files are removed before a read: one of a lower layer, one of the upper layer.
    const m = opened('m', O.WRONLY)
    const late = opened('m', O.RDONLY)
    table.remove(m.fh)
    t.equal(ops.unlink(1, 'g'), 0)
    t.equal(ops.unlink(1, 'm'), 0)
    t.strictSame([g.fd, late.fd], [-1, -1])
    t.strictSame([text(g), text(late)], ['gone', 'more'])
    t.equal(copyFileRange(u, late, 0, writer, 0, 4), 4)
    t.equal(text(f), 'morer')
    table.closeAll()
  },
)

t.test(
  'a server that may not read every file reports errors at open',
  { skip: skipUnions },
  async t => {
    const where = unionDirectories(t, { lower: [{ f: 'lower' }] })
    const { u, find } = stateOf(t, optionsOf(where, { volatile: true }))
    const table = new HandleTable()
    const out = new Opened()
    const node = find('f')
    t.equal(openFile(u, table, node, O.RDONLY, null, out), 0)
    fs.rmSync(`${where.lower[0] ?? ''}/f`)
    t.equal(openFile({ ...u, readsAll: false }, table, node, O.RDONLY, null, out), -E.ENOENT)
    t.equal(readFile(u, table.get(out.fh) as FileHandle, Buffer.alloc(1), 0, 1, 0), -E.ENOENT)
    // A file that does not exist any more cannot be opened.
    t.equal(openFile(u, table, node, O.RDONLY, null, out), -E.ENOENT)
    table.closeAll()
  },
)

t.test('whether the file was opened before', { skip: skipUnions }, async t => {
  const lower = { a: 'four', b: 'four', c: 'four', d: 'four', e: 'four', long: 'x'.repeat(70_000) }
  const where = unionDirectories(t, { lower: [lower] })
  const { u, ops, find } = stateOf(t, optionsOf(where, { volatile: true }))
  const out = new Opened()
  const table = new HandleTable()
  const unread = (node: Node, flags: number, union = u): number => {
    t.equal(openFile(union, table, node, flags, null, out), 0)
    return out.unread
  }
  const set = (node: Node, size: number): void => {
    const attr = new SetAttr()
    attr.valid = SetAttrValid.SIZE
    attr.size = size
    t.equal(ops.setattr(node.id, attr, new Attr()), 0)
  }
  const told = (name: string): Node => {
    t.equal(ops.lookup(1, name, new Entry()), 0)
    return find(name)
  }
  t.equal(unread(told('a'), O.RDONLY), 4)
  t.equal(unread(told('a'), O.RDONLY), -1, 'again')
  t.equal(unread(told('long'), O.RDONLY), 70_000)
  t.equal(unread(told('b'), O.RDONLY, { ...u, readsAll: false }), 4)
  t.equal(unread(told('b'), O.RDONLY), -1)
  t.equal(unread(told('c'), O.RDWR | O.TRUNC), -1, 'cut off now')
  t.equal(unread(told('c'), O.RDONLY), -1)
  const d = told('d')
  set(d, 2)
  t.equal(unread(d, O.RDONLY), 2, 'cut off before')
  const e = told('e')
  t.equal(unread(e, O.WRONLY), 4)
  t.equal(unread(e, O.RDONLY), -1, 'written')
  const made = new Entry()
  const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
  t.equal(ops.create(caller, 1, 'new', 0o644, O.WRONLY, made, out), 0)
  ops.release(out.fh)
  t.equal(unread(find('new'), O.RDONLY), -1, 'created')
  table.closeAll()
})

t.test(
  'a new file that the kernel will write is opened for writing when it has to be',
  { skip: skipUnions },
  async t => {
    const where = unionDirectories(t, { lower: [{ from: 'source' }] })
    const { ops, find } = stateOf(t, optionsOf(where), false, true)
    const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
    const text = Buffer.from('text')
    const [entry, out, source] = [new Entry(), new Opened(), new Opened()]
    const create = (name: string, flags: number, mode = 0o200): void => {
      t.equal(ops.create(caller, 1, name, mode, flags, entry, out), 0, name)
    }
    const content = (name: string): string => fs.readFileSync(`${where.upper}/${name}`, 'latin1')
    const ways: Record<string, [run: () => number, result: number, content: string]> = {
      write: [() => ops.write(out.fh, text, 0, 4, 1, false, false), 4, '\0text'],
      fallocate: [() => ops.fallocate(out.fh, 0, 0, 3), 0, '\0\0\0'],
      copy: [() => ops.copyFileRange(source.fh, 0, out.fh, 0, 6, 0), 6, 'source'],
    }
    t.equal(ops.open(find('from').id, O.RDONLY, false, source), 0)
    for (const [name, [run, result, after]] of Object.entries(ways)) {
      create(name, O.WRONLY)
      const { fd } = out
      t.match(out, { writable: true, onlyReads: true })
      t.equal(accessOf(fd), O.RDONLY)
      t.equal(run(), result, `${name} comes through`)
      t.equal(accessOf(fd), O.RDWR, 'by the same number')
      t.equal(
        fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8').match(/flags:\s*0*2\d*/) !== null,
        true,
        'which no program inherits',
      )
      t.equal(content(name), after)
      ops.release(out.fh)
      t.throws(() => fs.fstatSync(fd), { code: 'EBADF' }, 'closed')
    }
    create('cut', O.RDWR)
    const attr = new SetAttr()
    Object.assign(attr, { valid: SetAttrValid.SIZE | SetAttrValid.FH, size: 2, fh: out.fh })
    t.equal(ops.setattr(entry.nodeId, attr, new Attr()), 0)
    t.equal(content('cut'), '\0\0')
    t.equal(ops.unlink(1, 'cut'), 0)
    t.equal(ops.write(out.fh, text, 0, 4, 0, false, false), 4, 'also without a name')
    ops.release(out.fh)
    create('read', O.RDONLY)
    t.equal(ops.write(out.fh, text, 0, 4, 0, false, false), -E.EBADF)
    ops.release(out.fh)
    for (const [flags, mode] of [
      [O.WRONLY, 0o4755],
      [O.WRONLY, 0o2755],
      [O.WRONLY | O.SYNC, 0o644],
      [O.WRONLY | O.DSYNC, 0o644],
    ] as const) {
      create(`${flags}-${mode}`, flags, mode)
      t.match(out, { writable: true, onlyReads: false }, 'as it was asked for')
      t.equal(accessOf(out.fd), O.WRONLY)
      ops.release(out.fh)
    }
    ops.release(source.fh)
  },
)

t.test('opening', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, {
    lower: [{ f: file('text', { mode: 0o6755, uid: 5 }), g: 'g' }],
  })
  const { u, ops, find } = stateOf(t, optionsOf(where, { volatile: true }))
  const table = new HandleTable()
  const out = new Opened()
  const node = find('f')
  t.equal(openFile(u, table, node, O.RDONLY, null, out), 0)
  t.match(out, { writable: false, upper: false, privileged: false })
  t.notOk(fs.existsSync(`${where.upper}/f`), 'a reader copies nothing up')
  node.protect = Protect.APPEND
  t.equal(openFile(u, table, node, O.WRONLY, null, out), -E.EPERM)
  t.equal(openFile(u, table, node, O.WRONLY | O.APPEND | O.TRUNC, null, out), -E.EPERM)
  node.protect = 0
  t.equal(openFile(u, table, node, O.WRONLY, null, out), 0)
  t.match(out, { writable: true, upper: true, privileged: true })
  const who = { uid: 5, gid: 5, pid: process.pid, umask: 0 }
  t.equal(openFile(u, table, node, O.WRONLY | O.TRUNC, who, out), 0)
  t.match(fs.statSync(`${where.upper}/f`), { size: 0, mode: 0o100755 }, 'set-id bits are dropped')
  t.equal(table.size, 3)
  // Without a name and an orphan fd, the node is reached through a handle.
  fs.rmSync(`${where.upper}/f`)
  const st = new Stat()
  t.equal(statOpen(u, table, node, 0, st), 0)
  t.equal(st.nlink, 0)
  while (node.handles?.[0] !== undefined) table.remove(node.handles[0].fh)
  t.equal(statOpen(u, table, node, 0, st), -E.ENOENT)
  t.equal(ops.counts().jobs, 0)
})

t.test('a file open for writing needs no name', { skip: skipUnions }, async t => {
  const where = unionDirectories(t, { lower: [{ f: 'lower', g: 'other' }] })
  const { u, ops, find } = stateOf(t, optionsOf(where, { volatile: true }))
  const [writer, reader] = [new Opened(), new Opened()]
  const attr = new Attr()
  const set = new SetAttr()
  set.valid = SetAttrValid.MODE | SetAttrValid.MTIME
  set.mode = 0o640
  set.mtimeSec = 5
  const inUpper = (name: string): object => {
    const { mode, mtimeMs } = fs.statSync(`${where.upper}/${name}`)
    return { mode: mode & 0o777, mtimeMs }
  }
  const wanted = { mode: 0o640, mtimeMs: 5000 }
  const f = find('f')
  t.equal(writersFd(f), -1)
  t.equal(ops.open(f.id, O.WRONLY, false, writer), 0)
  t.equal(writersFd(f), writer.fd)
  t.equal(ops.setattr(f.id, set, attr), 0)
  t.match(attr, { mode: sys.S.IFREG | 0o640, size: 5, nlink: 1 })
  t.strictSame(inUpper('f'), wanted)
  t.equal(fs.statSync(`${where.lower[0]}/f`).mode & 0o777, 0o644)
  t.equal(ops.rename(1, 'f', 1, 'moved', 0), 0)
  t.equal(ops.link(f.id, 1, 'second', new Entry()), 0)
  t.equal(ops.getattr(f.id, 0, attr), 0)
  t.equal(attr.nlink, 2)
  t.equal(ops.unlink(1, 'moved'), 0)
  t.equal(ops.unlink(1, 'second'), 0)
  t.equal(ops.getattr(f.id, 0, attr), 0)
  t.equal(attr.nlink, 0)
  ops.release(writer.fh)
  t.equal(writersFd(f), -1)
  // The first handle's descriptor is that of the lower file until the copy-up.
  const g = find('g')
  t.equal(ops.open(g.id, O.RDONLY, false, reader), 0)
  t.equal(ops.read(reader.fh, Buffer.alloc(9), 0, 9, 0), 5)
  t.equal(writersFd(g), -1)
  t.equal(ops.setattr(g.id, set, attr), 0)
  t.match(attr, { mode: sys.S.IFREG | 0o640, size: 5 })
  t.strictSame(inUpper('g'), wanted)
  t.equal(u.nodes.get(g.id)?.upper, true)
  ops.release(reader.fh)
})

t.test('the capability of a file open for writing is known', { skip: skipUnions }, async t => {
  const name = 'security.capability'
  // struct vfs_cap_data: revision 2, CAP_NET_RAW permitted
  const value = Buffer.from('0000000200200000000000000000000000000000', 'hex')
  const where = unionDirectories(t, {
    lower: [{ f: 'none', capable: file('has', { xattrs: { [name]: value.latin1Slice() } }) }],
  })
  const { ops, find } = stateOf(t, optionsOf(where, { volatile: true }))
  const opened = new Opened()
  const made = new Entry()
  const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
  const length = (id: number): number => ops.getxattr(id, name, Buffer.alloc(0), 0, 0)
  t.equal(ops.create(caller, 1, 'new', 0o644, O.WRONLY, made, opened), 0)
  for (const id of [made.nodeId, find('f').id]) {
    if (id !== made.nodeId) t.equal(ops.open(id, O.WRONLY, false, opened), 0)
    t.equal(length(id), -E.ENODATA)
    t.equal(ops.setxattr(id, name, value, 0, false), 0)
    t.equal(length(id), value.length, 'one that is set while it is open')
    const { fh } = opened
    t.equal(ops.open(id, O.WRONLY, false, opened), 0)
    t.equal(length(id), value.length)
    t.equal(ops.removexattr(id, name), 0)
    t.equal(length(id), -E.ENODATA)
    ops.release(fh)
    t.equal(length(id), -E.ENODATA)
    t.equal(ops.setxattr(id, name, value, 0, false), 0)
    t.equal(length(id), value.length)
    ops.release(opened.fh)
  }
  const { id } = find('capable')
  t.equal(length(id), value.length)
  t.equal(ops.open(id, O.WRONLY, false, opened), 0)
  t.equal(length(id), value.length)
  ops.release(opened.fh)
})

/** Removes and replaces open files with libfuse's requests, through the handlers. */

import t, { type Test } from 'tap'
import { handlersOf } from '../../../src/fuse-native/handlers.js'
import { Session } from '../../../src/fuse-native/session.js'
import { defaultTuning } from '../../../src/config/tuning.js'
import { Pending, type Result } from '../../../src/overlay/ops.js'
import { E } from '../../../src/sys/errno.js'
import { recordingLog } from '../fuse/support.js'
import { NamesOps } from './support.js'

const nothing: (r: Result) => void = () => {}
const HIDDEN = '.fuse_hidden0000000500000001'

const start = (t: Test, ...names: string[]) => {
  const union = new NamesOps(...names)
  const log = recordingLog()
  const s = new Session({ ops: union.ops, log, tuning: defaultTuning, uid: 0, gid: 0 })
  t.teardown(() => s.close())
  const handlers = handlersOf(s)
  const [one, another] = [Buffer.alloc(1), Buffer.alloc(1)]
  const rename = (thread: Buffer, from: string, to: string): Result | undefined => {
    let result: Result | undefined
    s.thread = thread
    handlers.rename(from, to, r => (result = r))
    return result
  }
  const unlink = (path: string): Result | undefined => {
    let result: Result | undefined
    handlers.unlink(path, r => (result = r))
    return result
  }
  const open = (path: string): void => {
    s.opened.fh++
    s.fileOpened(s.node(path))
  }
  const changes = (): string[] => union.calls.filter(call => !call.startsWith('lookup'))
  return { union, log, s, one, another, rename, unlink, open, changes }
}

t.test('an open file is removed, under its own name', async t => {
  const { s, one, rename, unlink, open, changes } = start(t, '/f')
  open('/f')
  t.equal(rename(one, '/f', `/${HIDDEN}`), 0)
  t.same(changes(), [], 'not yet')
  t.equal(unlink('/nothing'), -E.ENOENT)
  t.same(changes(), ['unlink /f', 'unlink /nothing'], 'before anything else')
  t.ok(s.node(`/${HIDDEN}`) > 0, 'libfuse finds it')
  t.equal(unlink(`/${HIDDEN}`), 0)
  t.equal(changes().length, 2, 'there is nothing more to remove')
  t.equal(s.node(`/${HIDDEN}`), -E.ENOENT)
})

t.test('the removal has a time limit', async t => {
  const { one, rename, open, changes } = start(t, '/f')
  open('/f')
  rename(one, '/f', `/${HIDDEN}`)
  await new Promise(done => setTimeout(done, 100))
  t.same(changes(), ['unlink /f'])
})

t.test('an open file is replaced in one step', async t => {
  const { s, one, rename, open, changes } = start(t, '/f', '/new')
  open('/f')
  const made = s.node('/new')
  rename(one, '/f', `/${HIDDEN}`)
  t.equal(rename(one, '/new', '/f'), 0)
  t.same(changes(), ['rename /new /f'])
  t.equal(s.node('/f'), made)
  t.equal(s.node('/new'), -E.ENOENT)
})

t.test('a rename that fails keeps the target', async t => {
  const { union, s, one, rename, unlink, open, changes } = start(t, '/f', '/new')
  open('/f')
  const old = s.node('/f')
  rename(one, '/f', `/${HIDDEN}`)
  union.next = () => -E.ENOSPC
  t.equal(rename(one, '/new', '/f'), -E.ENOSPC)
  t.equal(s.node('/f'), old)
  t.equal(unlink(`/${HIDDEN}`), 0)
  t.same(changes(), ['rename /new /f'], 'also when it is closed')
})

t.test('a rename that waits is not overtaken', async t => {
  const { union, one, another, rename, unlink, open, changes } = start(t, '/f', '/new', '/x')
  open('/f')
  rename(one, '/f', `/${HIDDEN}`)
  let done = nothing
  union.next = () => {
    throw new Pending({ onDone: callback => (done = callback) }, false)
  }
  t.equal(rename(one, '/new', '/f'), undefined)
  t.equal(unlink('/x'), 0)
  t.equal(rename(another, '/none', '/f'), -E.ENOENT)
  t.notOk(changes().includes('unlink /f'))
  done(0)
  t.equal(changes().at(-1), 'rename /new /f')
})

t.test('another thread renames to that name first', async t => {
  const { one, another, rename, open, changes } = start(t, '/f', '/new')
  open('/f')
  rename(one, '/f', `/${HIDDEN}`)
  t.equal(rename(another, '/new', '/f'), 0)
  t.same(changes(), ['unlink /f', 'rename /new /f'])
})

t.test('a removal that must wait, and one that fails', async t => {
  const { union, log, s, one, rename, unlink, open, changes } = start(t, '/f', '/g')
  open('/f')
  rename(one, '/f', `/${HIDDEN}`)
  let done = nothing
  union.next = () => {
    throw new Pending({ onDone: callback => (done = callback) }, true)
  }
  t.equal(unlink('/g'), undefined, 'whoever comes waits, too')
  union.next = () => -E.ENOSPC
  done(-E.EIO)
  t.same(changes(), ['unlink /f', 'unlink /f', 'unlink /g'])
  t.match(log.lines, [['error', /keeps its name/, { name: 'f', errno: 'ENOSPC' }]])
  t.ok(s.node('/f') > 0)
})

t.test('a file that is not open may have such a name', async t => {
  const { one, rename, changes } = start(t, '/f')
  t.equal(rename(one, '/f', `/${HIDDEN}`), 0)
  t.same(changes(), [`rename /f /${HIDDEN}`])
})

t.test('two names of one file', async t => {
  const { union, s, one, rename } = start(t, '/a')
  union.put('/b', s.node('/a'))
  const id = s.node('/a')
  t.equal(rename(one, '/a', '/b'), 0)
  t.equal(s.node('/a'), id, 'both stay')
  t.equal(s.node('/b'), id)
})

t.test('an operation that throws', async t => {
  const { union, log, s, unlink } = start(t, '/f')
  union.next = () => {
    throw new Error('a fault')
  }
  t.equal(unlink('/f'), -E.EIO)
  t.match(log.lines, [['error', 'an operation failed', { op: 'unlink' }]])
  s.close()
  t.equal(unlink('/f'), -E.EIO, 'nothing is begun any more')
})

import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import { copyInBackground, takesLong } from '../../../../src/overlay/copy-up/data-job.js'
import type { IoPool } from '../../../../src/overlay/jobs/pool.js'
import { NodeTable } from '../../../../src/overlay/inode/nodes.js'
import type { Job, Result } from '../../../../src/overlay/ops.js'
import type { Union } from '../../../../src/overlay/namei/context.js'
import { E } from '../../../../src/sys/errno.js'
import { scratch } from '../../../helpers/layers.js'
import { openFds } from '../../../helpers/union.js'
import { pendingOf } from '../support.js'

const S_IFREG = 0o100000

/**
 * A pool whose task ends when the test calls `finish` or `abandon`, with the result that it passes.
 */
class FakePool {
  readonly job: Job = { onDone: () => {} }
  task: unknown
  finish: (result: Result) => Result = () => 0
  abandon: () => void = () => {}

  submit(...[task, finish, abandon]: Parameters<IoPool['submit']>): Job {
    this.task = task
    this.finish = finish ?? this.finish
    this.abandon = abandon ?? this.abandon
    return this.job
  }
}

const start = (t: Test, finish: (copied: Result) => Result) => {
  const top = scratch(t)
  fs.writeFileSync(`${top}/source`, 'source')
  const before = openFds()
  const pool = new FakePool()
  const nodes = new NodeTable(1, [])
  const u = { pool, nodes, syncIsFree: false, slow: null } as unknown as Union
  const node = nodes.create(S_IFREG, 7)
  const [src, dst] = [fs.openSync(`${top}/source`, 'r'), fs.openSync(`${top}/copy`, 'w')]
  const pending = pendingOf(() => copyInBackground(u, node, src, dst, 6, finish))
  return { pool, nodes, node, src, dst, pending, before }
}

t.test('a large file, or one that must be synced, takes long', async t => {
  const free = { syncIsFree: true } as Union
  const costly = { syncIsFree: false } as Union
  t.strictSame(
    [0, 1 << 20, (1 << 20) + 1].map(size => takesLong(free, -1, size)),
    [false, false, true],
  )
  t.ok(takesLong(costly, -1, 1))
})

t.test('the node has a job until the copy ends, then all is released', async t => {
  const seen: unknown[] = []
  const { pool, nodes, node, src, dst, pending, before } = start(t, copied => {
    seen.push(copied, node.job, fs.fstatSync(src).size, fs.fstatSync(dst).size)
    return 5
  })
  t.strictSame(pool.task, { kind: 'copy', src, dst, size: 6, sync: true })
  t.equal(pending.answer, false, 'the operation is to be called again')
  t.equal(pending.job, pool.job)
  t.equal(node.job?.job, pool.job)
  nodes.forget(node.id, 1)
  t.equal(nodes.get(node.id), node, 'it lives as long as its job')
  t.equal(pool.finish(0), 5, 'what `finish` returned')
  t.strictSame(seen, [0, null, 6, 0], 'both descriptors were open then')
  t.equal(nodes.get(node.id), undefined, 'nothing needs it any more')
  t.strictSame(openFds(), before)
})

t.test('a failed copy is reported, and leaves nothing open', async t => {
  const { pool, node, before } = start(t, copied => copied)
  t.equal(pool.finish(-E.ENOSPC), -E.ENOSPC)
  t.equal(node.job, null)
  t.strictSame(openFds(), before)
})

t.test('closing the union during a copy closes both files, and finishes nothing', async t => {
  const { pool, before } = start(t, () => {
    t.fail('not to be finished')
    return 0
  })
  pool.abandon()
  t.strictSame(openFds(), before)
})

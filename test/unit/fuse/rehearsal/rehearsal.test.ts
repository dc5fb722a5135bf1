import t from 'tap'

import type { InitWish } from '../../../../src/fuse/init.js'
import { Asker, notifierInto, type Likeness } from '../../../../src/fuse/rehearsal/asker.js'
import { Rehearsal } from '../../../../src/fuse/rehearsal/rehearsal.js'
import {
  changeMany,
  playFile,
  playLower,
  removeLower,
  playMerged,
  readFolder,
} from '../../../../src/fuse/rehearsal/scenes.js'
import {
  FILES,
  lowerName,
  MERGED,
  openStage,
  type Stage,
} from '../../../../src/fuse/rehearsal/stage.js'
import { defaultTuning } from '../../../../src/fuse/tuning.js'
import { silentLogger, type Logger } from '../../../../src/log.js'
import { Opcode, opcodeName, OUT_HEADER_SIZE } from '../../../../src/fuse/abi.js'
import { openFds } from '../../../helpers/union.js'
import { FakeFiles } from '../support.js'
import { skipUnions } from '../../overlay/support.js'

const files = new FakeFiles()
const like = (wish: InitWish): Likeness => ({
  wish,
  tuning: defaultTuning,
  log: silentLogger,
  files,
})
/** No descriptor. */
const NOWHERE = -1
const stageLike = (writeback: boolean): Stage =>
  openStage({ writeback, passthrough: !writeback, noOpen: false, notifier: notifierInto(NOWHERE) })
const CACHED = like({ io: 'cached', writeback: true, stackDepth: 1 })
const PASSTHROUGH = like({ io: 'passthrough', writeback: false, stackDepth: 1 })

for (const likeness of [CACHED, PASSTHROUGH]) {
  const { wish } = likeness

  t.test(`${wish.io}: it ends by itself, and leaves nothing open`, async t => {
    const before = openFds()
    const rehearsal = new Rehearsal(likeness)
    let steps = 0
    while (rehearsal.step()) steps++
    t.ok(steps > 4, `${steps} steps`)
    t.strictSame(openFds(), before)
    const ids = files.log.splice(0).map(line => line.split(' ')[0])
    const closed = ids.filter(word => word === 'close').length
    t.equal(ids.length, 2 * closed, 'also no backing id')
    t.equal(closed > 0, wish.io === 'passthrough')
    rehearsal.close()
    t.strictSame(openFds(), before, 'closing it again does nothing')
  })

  t.test(`${wish.io}: every scene can be played again and again`, { skip: skipUnions }, async t => {
    const stage = stageLike(wish.writeback)
    t.teardown(() => stage.close())
    const { restore } = stage
    if (restore === null) throw new Error('nothing to write on')
    const asker = new Asker(stage.ops, likeness, NOWHERE)
    const play = { asker, restore, late: wish.writeback }
    const asked = new Set<string>()
    const failed = new Set<string>()
    const ask = asker.ask.bind(asker)
    asker.ask = (opcode, ...rest) => {
      const before = asker.errors
      const length = ask(opcode, ...rest)
      const name = opcodeName(opcode)
      asked.add(name)
      // A file without a capability says so.
      if (asker.errors > before && opcode !== Opcode.GETXATTR) failed.add(name)
      return length
    }
    const known: number[] = []
    for (let round = 0; round < 3; round++) {
      playMerged(play)
      for (let i = 0; i < FILES; i++) {
        playLower(play, i)
        playFile(play, i)
        changeMany(play, i)
        removeLower(play, i)
      }
      known.push(stage.ops.counts().nodes)
    }
    t.strictSame([...failed], [], 'everything succeeds')
    t.equal(asked.size, 23)
    t.equal(known[2], known[1], 'and nothing heaps up')
    t.equal(stage.ops.counts().files, 0)
    t.equal(
      asker.taken > 0,
      wish.writeback,
      'where the kernel writes back, much goes through a pipe',
    )
    t.equal(asker.lookup(asker.lookup(1, MERGED), 'new-0'), 0)
  })
}

t.test('nobody reads of what is practised', { skip: skipUnions }, t => {
  const lines: string[] = []
  const note = (_fields: Record<string, unknown>, message: string): void => void lines.push(message)
  const log: Logger = {
    debug: note,
    info: note,
    warn: note,
    error: note,
    isLevelEnabled: () => true,
  }
  const stage = stageLike(false)
  t.teardown(() => stage.close())
  const asker = new Asker(stage.ops, { ...PASSTHROUGH, log }, NOWHERE)
  playLower({ asker, late: false, restore: stage.restore ?? (() => {}) }, 0)
  t.strictSame(lines, [])
  t.end()
})

t.test('it can be ended', async t => {
  const before = openFds()
  const rehearsal = new Rehearsal(CACHED)
  t.ok(rehearsal.step())
  t.ok(rehearsal.close())
  t.strictSame(openFds(), before)
  t.notOk(rehearsal.close())
  t.notOk(rehearsal.step())
})

t.test('a folder that is not there', { skip: skipUnions }, async t => {
  const stage = stageLike(false)
  t.teardown(() => stage.close())
  const asker = new Asker(stage.ops, PASSTHROUGH, NOWHERE)
  t.notOk(readFolder(asker, 'none'))
  t.ok(readFolder(asker, lowerName(0)))
  t.equal(asker.ask(Opcode.READLINK, 999, 0, []), OUT_HEADER_SIZE, 'an error')
})

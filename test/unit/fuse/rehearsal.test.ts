import t from 'tap'

import { Rehearsal } from '../../../src/fuse/rehearsal.js'
import { openFds } from '../../helpers/union.js'

t.test('it ends by itself, and leaves nothing open', async t => {
  const before = openFds()
  const rehearsal = new Rehearsal()
  let steps = 0
  while (rehearsal.step()) steps++
  t.ok(steps > 4, `all folders were there: ${steps}`)
  t.strictSame(openFds(), before)
  rehearsal.close()
  t.strictSame(openFds(), before, 'closing it again does nothing')
})

t.test('it can be ended', async t => {
  const before = openFds()
  const rehearsal = new Rehearsal()
  t.ok(rehearsal.step())
  rehearsal.close()
  t.strictSame(openFds(), before)
})

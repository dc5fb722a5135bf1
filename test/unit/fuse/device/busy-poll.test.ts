import t, { type Test } from 'tap'

import { BusyPoll } from '../../../../src/fuse/device/busy-poll.js'

/**
 * A caller that waits `gap` milliseconds between its requests; a wakeup takes `wake` milliseconds.
 */
const scene = (
  processors = 2,
): {
  busyPoll: BusyPoll
  request: (gap: number, wake?: number) => { polls: number; slept: boolean }
} => {
  let now = 0
  const busyPoll = new BusyPoll(
    processors,
    () => now,
    () => {
      now += 0.001
    },
  )
  const request = (gap: number, wake = 0.02): { polls: number; slept: boolean } => {
    const due = now + gap
    let polls = 0
    while (busyPoll.again()) {
      polls++
      if (now >= due) {
        busyPoll.found()
        return { polls, slept: false }
      }
    }
    now = Math.max(now, due) + wake
    busyPoll.slept()
    busyPoll.found()
    return { polls, slept: true }
  }
  return { busyPoll, request }
}

const sleeps = (t: Test, results: { slept: boolean }[], expected: boolean[], name: string): void =>
  void t.strictSame(
    results.map(result => result.slept),
    expected,
    name,
  )

t.test('the thread polls if requests come close together', async t => {
  const { request } = scene()
  sleeps(
    t,
    [0, 1, 2, 3, 4, 5].map(() => request(0.01)),
    [true, true, false, false, false, false],
    'after two short sleeps',
  )
  const { polls, slept } = request(1000)
  t.ok(slept, 'silence: it sleeps')
  t.ok(polls <= 51, `after a moment: ${polls}`)
  t.strictSame(request(1000), { polls: 0, slept: true }, 'and then at once')
})

t.test('the thread never polls if requests are far apart', async t => {
  const { request } = scene()
  for (let i = 0; i < 20; i++) t.strictSame(request(0.2), { polls: 0, slept: true })
})

t.test('polls without a result end the polling', async t => {
  const { request } = scene()
  for (let i = 0; i < 4; i++) request(0.01)
  // Just longer than the poll: one attempt, then the thread sleeps at once.
  t.ok(request(0.12).polls > 0)
  for (let i = 0; i < 5; i++) t.strictSame(request(0.12), { polls: 0, slept: true })
  sleeps(
    t,
    [0, 1, 2, 3].map(() => request(0.01)),
    [true, true, false, false],
    'it learns again',
  )
})

t.test('no polling with a single processor', async t => {
  const { request } = scene(1)
  for (let i = 0; i < 10; i++) t.strictSame(request(0.01), { polls: 0, slept: true })
})

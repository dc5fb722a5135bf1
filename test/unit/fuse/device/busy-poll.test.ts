import t, { type Test } from 'tap'

import { Linger } from '../../../../src/fuse/device/busy-poll.js'

/** A caller that lets `gap` milliseconds pass between its requests; waking up takes `wake`. */
const scene = (
  processors = 2,
): {
  linger: Linger
  request: (gap: number, wake?: number) => { looks: number; slept: boolean }
} => {
  let now = 0
  const linger = new Linger(
    processors,
    () => now,
    () => {
      now += 0.001
    },
  )
  const request = (gap: number, wake = 0.02): { looks: number; slept: boolean } => {
    const due = now + gap
    let looks = 0
    while (linger.on()) {
      looks++
      if (now >= due) {
        linger.end()
        return { looks, slept: false }
      }
    }
    now = Math.max(now, due) + wake
    linger.waited()
    linger.end()
    return { looks, slept: true }
  }
  return { linger, request }
}

const sleeps = (t: Test, results: { slept: boolean }[], expected: boolean[], name: string): void =>
  void t.strictSame(
    results.map(result => result.slept),
    expected,
    name,
  )

t.test('requests close together are waited for without sleeping', async t => {
  const { request } = scene()
  sleeps(
    t,
    [0, 1, 2, 3, 4, 5].map(() => request(0.01)),
    [true, true, false, false, false, false],
    'after two short sleeps',
  )
  const { looks, slept } = request(1000)
  t.ok(slept, 'silence: it sleeps')
  t.ok(looks <= 51, `after a moment: ${looks}`)
  t.strictSame(request(1000), { looks: 0, slept: true }, 'and then at once')
})

t.test('requests far apart are never waited for', async t => {
  const { request } = scene()
  for (let i = 0; i < 20; i++) t.strictSame(request(0.2), { looks: 0, slept: true })
})

t.test('looking in vain ends it', async t => {
  const { request } = scene()
  for (let i = 0; i < 4; i++) request(0.01)
  // Just beyond what it looks for: one attempt, then it learns.
  t.ok(request(0.12).looks > 0)
  for (let i = 0; i < 5; i++) t.strictSame(request(0.12), { looks: 0, slept: true })
  sleeps(
    t,
    [0, 1, 2, 3].map(() => request(0.01)),
    [true, true, false, false],
    'it learns again',
  )
})

t.test('a single processor is never kept from others', async t => {
  const { request } = scene(1)
  for (let i = 0; i < 10; i++) t.strictSame(request(0.01), { looks: 0, slept: true })
})

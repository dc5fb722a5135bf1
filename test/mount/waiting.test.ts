/**
 * Operations of one caller that have to wait do not block other callers: layers on slow file
 * systems, FIFOs, leases.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import {
  directories,
  outcomeOf,
  serve,
  skipMounts,
  spawnNode,
  test,
  waitUntil,
  type Directories,
} from '../helpers/mount.js'

const MODES = ['io=cached', 'io=passthrough'] as const
const SLOW = fileURLToPath(new URL('../fixtures/slow-fuse.mjs', import.meta.url))

interface SlowLayer extends Directories {
  slow: string
  /** Sets the delay of each answer of the slow file system, in milliseconds. */
  delay: (ms: number) => Promise<void>
}

/** Directories with a slow lower layer above an ordinary one. */
const slowLayer = async (t: Test): Promise<SlowLayer> => {
  const f = directories(t, 'slow')
  const slow = `${f.top}/slow-layer`
  fs.mkdirSync(slow)
  fs.mkdirSync(`${f.lower}/quick`)
  fs.writeFileSync(`${f.lower}/quick/file`, 'quick')
  const server = spawnNode([SLOW, slow], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(server, 'close')
  f.before(async () => {
    server.stdin?.end()
    await ended
  })
  const [line] = (await once(server.stdout!.setEncoding('utf8'), 'data')) as [string]
  t.equal(line, 'ready\n')
  const delay = async (ms: number): Promise<void> => {
    server.stdin?.write(`${ms}\n`)
    // The slow file system does not confirm the new delay, so the test waits.
    await new Promise(done => setTimeout(done, 200))
  }
  const options = `lowerdir=${slow}:${f.lower},upperdir=${f.upper},workdir=${f.work}`
  return { ...f, slow, options, delay }
}

/** Runs a call that may block in a separate process. */
const run = (program: string, ...args: string[]): ChildProcess =>
  spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })

/**
 * The fastest and the slowest of some calls in a directory that is not on the slow layer, in
 * milliseconds.
 */
const quickStats = async (directory: string): Promise<{ best: number; worst: number }> => {
  const times: number[] = []
  for (let n = 0; n < 8; n++) {
    const begun = performance.now()
    await fs.promises.stat(`${directory}/no${n}`).catch(() => {})
    times.push(performance.now() - begun)
    await new Promise(done => setTimeout(done, 30))
  }
  return { best: Math.min(...times), worst: Math.max(...times) }
}

for (const io of MODES) {
  test(t, `a layer that takes 2 s for each answer, ${io}`, { skip: skipMounts }, async t => {
    const f = await slowLayer(t)
    await serve(t, f, '-o', io)
    fs.statSync(`${f.merged}/quick/file`)
    fs.statSync(`${f.merged}/slow`)
    await f.delay(2000)
    const asked = Array.from({ length: 10 }, (_, n) => run('stat', `${f.merged}/slow/f${n}`))
    let answered = 0
    const outcomes = asked.map(async child => {
      const outcome = await outcomeOf(child)
      answered++
      return outcome
    })
    await new Promise(done => setTimeout(done, 300))
    const { best, worst } = await quickStats(`${f.merged}/quick`)
    t.equal(answered, 0, 'ten are still waiting')
    t.ok(best < 100, `others are answered at once: ${best} ms`)
    t.ok(worst < 1500, `each of them: ${worst} ms`)
    for (const { status } of await Promise.all(outcomes)) t.equal(status, 0)
    await f.delay(0)
  })

  test(
    t,
    `a process that waits for a slow layer can be killed, ${io}`,
    { skip: skipMounts },
    async t => {
      const f = await slowLayer(t)
      const server = await serve(t, f, '-o', io)
      fs.statSync(`${f.merged}/slow`)
      await f.delay(3000)
      const child = run('cat', `${f.merged}/slow/f1`)
      await new Promise(done => setTimeout(done, 300))
      child.kill('SIGKILL')
      const begun = performance.now()
      const { signal } = await outcomeOf(child)
      t.equal(signal, 'SIGKILL')
      t.ok(performance.now() - begun < 2000, 'it does not wait for the answer')
      await f.delay(0)
      await waitUntil('nothing of it is left', () => filesOf(server.pid).length === 0)
      t.equal(fs.readFileSync(`${f.merged}/slow/f1`, 'latin1'), 'text of f1')
    },
  )

  test(t, `all operations on a slow layer, ${io}`, { skip: skipMounts }, async t => {
    const f = await slowLayer(t)
    const server = await serve(t, f, '-o', `${io},volatile`)
    const at = (name: string): string => `${f.merged}/slow/${name}`
    const text = (name: string): string => fs.readFileSync(at(name), 'latin1')
    // It runs without a delay and with one.
    for (const [ms, n] of [
      [0, 0],
      [5, 10],
    ] as const) {
      await f.delay(ms)
      const own = (i: number): string => `f${n + i}`
      if (ms === 0) t.equal(fs.readdirSync(`${f.merged}/slow`).length, 21)
      t.equal(text(own(0)), `text of ${own(0)}`)
      fs.appendFileSync(at(own(1)), ', more')
      t.equal(text(own(1)), `text of ${own(1)}, more`)
      fs.chmodSync(at(own(2)), 0o600)
      t.equal(fs.statSync(at(own(2))).mode & 0o777, 0o600)
      fs.renameSync(at(own(3)), at(`moved${n}`))
      t.equal(text(`moved${n}`), `text of ${own(3)}`)
      t.notOk(fs.existsSync(at(own(3))))
      fs.unlinkSync(at(own(4)))
      t.notOk(fs.existsSync(at(own(4))))
      fs.linkSync(at(own(5)), at(`link${n}`))
      t.equal(text(`link${n}`), `text of ${own(5)}`)
      fs.mkdirSync(at(`new${n}`))
      fs.renameSync(at(own(6)), at(`new${n}/x`))
      t.equal(text(`new${n}/x`), `text of ${own(6)}`)
      t.throws(() => fs.rmdirSync(at('')), { code: 'ENOTEMPTY' })
      t.throws(() => fs.rmdirSync(at(`new${n}`)), { code: 'ENOTEMPTY' })
      fs.copyFileSync(at(own(7)), at(`copy${n}`))
      t.equal(text(`copy${n}`), `text of ${own(7)}`)
      fs.truncateSync(at(own(8)), 4)
      t.equal(text(own(8)), 'text')
      t.notOk(fs.existsSync(at(`nothing${n}`)))
    }
    fs.chmodSync(at('large'), 0o640)
    t.ok(fs.readFileSync(at('large')).equals(Buffer.alloc(3 << 20, 'large')))
    const names = fs.readdirSync(`${f.merged}/slow`)
    t.equal(names.length, 21 + 2 * (3 - 2 + 1 - 1))
    t.equal(new Set(names).size, names.length)
    fs.rmSync(`${f.merged}/slow`, { recursive: true })
    t.strictSame(fs.readdirSync(f.merged), ['quick'])
    await waitUntil('every file of the layer is closed', () => filesOf(server.pid).length === 0)
    t.equal(fs.readdirSync(`${f.slow}/slow`).length, 21, 'the layer is unchanged')
    await f.delay(0)
  })

  test(t, `a FIFO that replaces a file, ${io}`, { skip: skipMounts }, async t => {
    const f = directories(t, 'fifo')
    for (const layer of [f.lower, f.upper]) fs.mkdirSync(`${layer}/d`)
    for (const file of [`${f.lower}/d/l`, `${f.upper}/d/u`]) fs.writeFileSync(file, 'text')
    await serve(t, f, '-o', io)
    for (const name of ['l', 'u']) fs.statSync(`${f.merged}/d/${name}`)
    for (const file of [`${f.lower}/d/l`, `${f.upper}/d/u`]) {
      fs.rmSync(file)
      t.equal((await outcomeOf(run('mkfifo', file))).status, 0)
    }
    for (const name of ['l', 'u']) {
      for (const script of ['cat "$1"', 'echo x >>"$1"', 'truncate -s 1 "$1"', 'lsattr "$1"']) {
        const child = run('timeout', '20', 'sh', '-c', script, 'sh', `${f.merged}/d/${name}`)
        const ended = outcomeOf(child)
        await new Promise(done => setTimeout(done, 100))
        const { best } = await quickStats(`${f.merged}/d`)
        t.ok(best < 1000, `${name}, ${script}: others are answered`)
        // After the kernel has revalidated the attributes it sees a FIFO, too. Opening a FIFO may
        // block.
        child.kill('SIGTERM')
        await ended
      }
    }
  })
}

/**
 * The files of a slow layer that a process has open. The layer is mounted privately, so their paths
 * begin at its root.
 */
const filesOf = (pid: number): string[] =>
  fs.readdirSync(`/proc/${pid}/fd`).flatMap(fd => {
    try {
      const path = fs.readlinkSync(`/proc/${pid}/fd/${fd}`)
      return /^\/slow\/(f\d+|large)$/.test(path) ? [path] : []
    } catch {
      return []
    }
  })

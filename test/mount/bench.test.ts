/**
 * The benchmark: it measures what it is asked for, writes its three files, and leaves nothing behind.
 * Times are nobody's business here.
 */

import * as fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import {
  mountTable,
  outcomeOf,
  scratch,
  skipMounts,
  spawnNode,
  test,
  until,
} from '../helpers/mount.js'

const launcher = fileURLToPath(new URL('../../bench/launch.mjs', import.meta.url))
const hasOverlay = fs.readFileSync('/proc/filesystems', 'utf8').includes('\toverlay\n')
const skip = skipMounts !== false ? skipMounts : hasOverlay ? false : 'needs kernel overlayfs'

const bench = (...args: string[]) => outcomeOf(spawnNode([launcher, ...args]))

/** What the report must hold; the rest of it is for readers. */
interface Report {
  systems: { name: string }[]
  rows: {
    medium: string
    processors: string
    workload: string
    step: string
    results: { system: string; operations: number; ms: number[]; peakMemory: number }[]
  }[]
  means: { processors: string; system: string; against: string; rows: number; ratio: number }[]
  memory: { system: string; nodes: number; before: number; after: number; forgotten: number }[]
  leftOut: { name: string; reason: string }[]
  requests: { workload: string; step: string; system: string; byOpcode: Record<string, number> }[]
  failures: { system: string; step: string; reason: string }[]
}

const TINY = ['--rounds', '1', '--scale', '0.01']
const CACHED = 'tsoverlay cached'
const SYSTEMS = ['kernel', 'tsoverlay passthrough', CACHED, 'tsoverlay noopen']

test(t, 'a few workloads on the kernel and on tsoverlay', { skip }, async t => {
  const { top } = scratch(t, 'bench')
  const out = `${top}/out`
  const only = 'kernel,tsoverlay,upper-files,mount'
  const { status, stderr } = await bench(...TINY, '--dir', top, '--out', out, '--only', only)
  t.equal(status, 0, stderr)
  t.match(stderr, /round 1 of 1/, 'it says how far it is')
  t.same(fs.readdirSync(out).toSorted(), ['latest.json', 'latest.md', 'latest.svg'])

  const report = JSON.parse(fs.readFileSync(`${out}/latest.json`, 'utf8')) as Report
  t.same(report.failures, [])
  t.same(
    report.systems.map(({ name }) => name),
    SYSTEMS,
  )
  const steps = ['create', 'chmod', 'rename', 'unlink'].map(step => `upper-files ${step}`)
  steps.push('mount mount', 'mount unmount')
  for (const processors of ['pinned', 'free']) {
    const rows = report.rows.filter(row => row.processors === processors)
    t.same(
      rows.map(({ workload, step }) => `${workload} ${step}`),
      steps,
      processors,
    )
    for (const { results } of rows) {
      t.same(
        results.map(({ system }) => system),
        SYSTEMS,
      )
      t.ok(results.every(({ ms, operations }) => ms.length === 1 && operations > 0))
    }
    const memory = rows[0]?.results.map(({ peakMemory }) => peakMemory > 0)
    t.same(memory, [false, true, true, true], 'the kernel has no server')
  }
  const opcodes = report.requests.find(({ step }) => step === 'create')?.byOpcode
  t.match(opcodes, { CREATE: Number }, 'requests are counted')

  t.match(fs.readFileSync(`${out}/latest.md`, 'utf8'), /^## tmpfs, all processors$/m)
  t.match(fs.readFileSync(`${out}/latest.svg`, 'utf8'), /^<svg [^>]*>[\s\S]*<\/svg>\n$/)
  t.same(mountTable(top), [], 'no mount is left')
  t.same(fs.readdirSync(top), ['out'], 'no other file is left')
})

test(t, 'every workload, on the kernel, and a peer that fails', { skip }, async t => {
  const { top } = scratch(t, 'bench')
  const out = `${top}/out`
  const peer = 'broken=false {lower} {upper} {work} {mnt}'
  const where = ['--dir', top, '--out', out, '--processors', 'free']
  const { status, stderr } = await bench(
    ...TINY,
    ...where,
    '--only',
    'kernel,broken',
    '--peer',
    peer,
  )
  t.equal(status, 0, stderr)
  const report = JSON.parse(fs.readFileSync(`${out}/latest.json`, 'utf8')) as Report
  t.ok(report.rows.length > 40)
  t.ok(report.rows.every(({ results }) => results.map(r => r.system).join() === 'kernel'))
  for (const step of ['memory', 'mount']) {
    const failure = report.failures.find(other => other.step === step)
    t.match(failure, { system: 'broken', reason: /the mount failed/ }, step)
  }
  t.same(
    report.failures.filter(({ system }) => system !== 'broken'),
    [],
  )
  t.same(mountTable(top), [], 'no mount is left')
  t.same(fs.readdirSync(top), ['out'], 'no other file is left')
})

test(t, 'programs, large copy-ups, memory, and all of it rootless', { skip }, async t => {
  const { top } = scratch(t, 'bench')
  const out = `${top}/out`
  const workloads = ['git', 'sqlite', 'copy-up-1g']
  const only = ['--only', ['kernel', CACHED, 'memory', ...workloads].join()]
  const where = ['--dir', top, '--out', out, '--processors', 'free', '--rootless', '--xfs']
  const { status, stderr } = await bench(...TINY, ...where, ...only)
  t.equal(status, 0, stderr)
  const report = JSON.parse(fs.readFileSync(`${out}/latest.json`, 'utf8')) as Report
  t.same(report.failures, [])

  const leftOut = new Map(report.leftOut.map(({ name, reason }) => [name, reason]))
  for (const reason of leftOut.values()) t.match(reason, /^it needs |^no user namespace /)
  const isMeasured = (name: string, processors: string): boolean =>
    report.rows.some(row => row.workload === name && row.processors === processors)
  for (const name of workloads) {
    // A copy-up of this size is for images only.
    const isHere = !leftOut.has(name) && !(name === 'copy-up-1g' && leftOut.has('xfs'))
    t.equal(isMeasured(name, 'free'), isHere, name)
    const isRootless = isHere && name !== 'copy-up-1g' && !leftOut.has('rootless')
    t.equal(isMeasured(name, 'rootless'), isRootless, `${name}, rootless`)
  }
  const both = report.rows.every(
    ({ results }) => results.map(({ system }) => system).join() === `kernel,${CACHED}`,
  )
  t.ok(both, 'both file systems have all rows')
  t.equal(report.rows.filter(({ step }) => step === 'wait').length, leftOut.has('xfs') ? 0 : 1)

  t.match(report.memory, [{ system: CACHED, nodes: 1010 }])
  t.ok(report.memory.every(({ before, after, forgotten }) => before * after * forgotten > 0))
  const mean = report.means.find(({ system, against }) => system === CACHED && against === 'kernel')
  t.equal(mean !== undefined && mean.rows > 0 && mean.ratio > 0, report.rows.length > 0)
  t.match(fs.readFileSync(`${out}/latest.md`, 'utf8'), /^## Memory for each file seen$/m)
  t.same(mountTable(top), [], 'no mount is left')
  t.same(fs.readdirSync(top), ['out'], 'no other file is left')
})

t.test('a workload without its programs', async t => {
  const env = { ...process.env, PATH: '/nonexistent' }
  const args = [launcher, '--list', '--only', 'git']
  const { status, stdout } = await outcomeOf(spawnNode(args, { env }))
  t.equal(status, 0)
  t.match(stdout, /^ {2}git +left out: it needs git$/m)
})

const noImages =
  skip !== false ? skip : fs.existsSync('/dev/loop-control') ? false : 'needs loop devices'

test(t, 'interrupted while it works on ext4', { skip: noImages }, async t => {
  const { top } = scratch(t, 'bench')
  const where = ['--dir', top, '--out', `${top}/out`, '--processors', 'free', '--ext4']
  const child = spawnNode([launcher, ...TINY, ...where, '--only', 'cached,walk'])
  const ended = outcomeOf(child)
  await until('a mount', () =>
    mountTable(`${top}/`).some(line => line.includes('/ext4/') && line.includes('fuse.tsoverlay')),
  )
  child.kill('SIGINT')
  t.equal((await ended).status, 130)
  t.same(mountTable(top), [], 'no mount is left')
  t.same(fs.readdirSync(top), [], 'no file is left, and no report is written')
})

t.test('arguments', async t => {
  const bad = [['--rounds=0'], ['--only=nonsense'], ['--peer=x']]
  const outcomes = await Promise.all([['--help'], ...bad].map(args => bench(...args)))
  t.match(outcomes.shift(), { status: 0, stdout: /^usage:/ })
  for (const outcome of outcomes) t.match(outcome, { status: 2, stderr: /^usage:/m })
})

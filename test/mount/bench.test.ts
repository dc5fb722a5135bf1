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
  requests: { workload: string; step: string; system: string; byOpcode: Record<string, number> }[]
  failures: unknown[]
}

const TINY = ['--rounds', '1', '--scale', '0.01']
const SYSTEMS = ['kernel', 'tsoverlay passthrough', 'tsoverlay cached']

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
    t.same(memory, [false, true, true], 'the kernel has no server')
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
  t.match(report.failures, [{ system: 'broken', step: 'mount', reason: /the mount failed/ }])
  t.notMatch(report.failures, [{ system: 'kernel' }])
  t.same(mountTable(top), [], 'no mount is left')
  t.same(fs.readdirSync(top), ['out'], 'no other file is left')
})

test(t, 'interrupted while it works on ext4', { skip }, async t => {
  const { top } = scratch(t, 'bench')
  const where = ['--dir', top, '--out', `${top}/out`, '--processors', 'free', '--ext4']
  const child = spawnNode([launcher, ...TINY, ...where, '--only', 'tsoverlay,walk,read'])
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

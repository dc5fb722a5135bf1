/**
 * Tests the benchmark: it measures the selected workloads, writes its files, and leaves nothing
 * behind. The measured times are not checked.
 */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import type { Report, Row } from '../../bench/report/report.js'
import type { State } from '../../bench/run/records.js'
import {
  mountTable,
  outcomeOf,
  scratch,
  skipMounts,
  spawnNode,
  test,
  waitUntil,
} from '../helpers/mount.js'

const launcher = fileURLToPath(new URL('../../bench/launch.mjs', import.meta.url))
const hasOverlay = fs.readFileSync('/proc/filesystems', 'utf8').includes('\toverlay\n')
const skip = skipMounts !== false ? skipMounts : hasOverlay ? false : 'needs kernel overlayfs'

const bench = (...args: string[]) => outcomeOf(spawnNode([launcher, ...args]))

const TINY = ['--rounds', '1', '--scale', '0.01']

const reportIn = (directory: string): Report =>
  JSON.parse(fs.readFileSync(`${directory}/report.json`, 'utf8')) as Report

/** The processes that the benchmark has started below a directory, and its files outside of it. */
const nothingIsLeft = (t: Test, top: string, files: string[]): void => {
  t.same(mountTable(top), [], 'no mount is left')
  t.same(fs.readdirSync(top), files, 'no other file is left')
  const processes = fs.readdirSync('/proc').filter(name => {
    try {
      return fs.readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(`${top}/tsoverlay-bench-`)
    } catch {
      return false
    }
  })
  t.same(processes, [], 'no process is left')
}

const statesOf = ({ results }: Row, system: string): State[] =>
  results.filter(result => result.system === system).map(({ state }) => state)

test(t, 'a few workloads on the kernel and on tsoverlay', { skip }, async t => {
  const { top } = scratch(t, 'bench')
  const out = `${top}/out`
  const only = 'kernel,tsoverlay,create,load-own'
  const { status, stderr } = await bench(...TINY, '--dir', top, '--out', out, '--only', only)
  t.equal(status, 0, stderr)
  t.match(stderr, /round 1 of 1/, 'it shows its progress')
  t.same(fs.readdirSync(out).toSorted(), ['report.json', 'report.md'])

  const report = reportIn(out)
  t.same(report.failures, [])
  t.same(
    report.systems.map(({ name }) => name),
    ['kernel', 'tsoverlay'],
  )
  const steps = ['create', 'chmod', 'rename', 'unlink'].map(step => `create ${step}`)
  for (const processors of ['free', 'pinned']) {
    const rows = report.rows.filter(row => row.processors === processors)
    t.same(
      rows.map(({ work, step }) => `${work} ${step}`),
      ['load-own read', ...steps],
      processors,
    )
    for (const row of rows) {
      t.same(statesOf(row, 'kernel'), ['first', 'steady'], row.title)
      t.same(statesOf(row, 'tsoverlay'), ['first', 'further', 'steady'], row.title)
      t.ok(row.results.every(({ ms, operations }) => ms.length === 1 && operations > 0))
      const servers = row.work === 'load-own' ? 2 : 1
      t.same(
        row.results.map(({ processes, memory }) => [processes, memory > 0]),
        row.results.map(({ system }) => (system === 'kernel' ? [0, false] : [servers, true])),
        'the kernel has no server',
      )
    }
  }
  t.match(fs.readFileSync(`${out}/report.md`, 'utf8'), /^## All processors$/m)
  nothingIsLeft(t, top, ['out'])
})

test(t, 'every workload on the kernel, and a peer that fails', { skip }, async t => {
  const { top } = scratch(t, 'bench')
  const out = `${top}/out`
  const where = ['--dir', top, '--out', out, '--processors', 'free']
  const peer = ['--peer', 'broken=false {lower} {upper} {work} {mnt}']
  const { status, stderr } = await bench(...TINY, ...where, '--only', 'kernel,broken', ...peer)
  t.equal(status, 0, stderr)
  const report = reportIn(out)
  const systems = new Set(report.rows.flatMap(({ results }) => results.map(r => r.system)))
  t.same([...systems], ['kernel'])
  t.ok(report.rows.filter(({ processors }) => processors === 'free').length > 50)
  t.match(
    report.failures.find(({ work }) => work === 'walk'),
    { system: 'broken', step: 'mount', reason: /^false: status 1/ },
  )
  const others = report.failures.filter(
    ({ system, work }) => system !== 'broken' && !work.startsWith('containers'),
  )
  t.same(others, [])
  nothingIsLeft(t, top, ['out'])
})

test(t, 'rootless', { skip }, async t => {
  const { top } = scratch(t, 'bench')
  const out = `${top}/out`
  const where = ['--dir', top, '--out', out, '--processors', 'free', '--rootless']
  const { status, stderr } = await bench(...TINY, ...where, '--only', 'tsoverlay,walk')
  t.equal(status, 0, stderr)
  const report = reportIn(out)
  t.same(report.failures, [])
  const passes = new Set(report.rows.map(({ processors }) => processors))
  const isMissing = report.leftOut.some(({ name }) => name === 'rootless')
  t.same([...passes], isMissing ? ['free'] : ['free', 'rootless'])
  nothingIsLeft(t, top, ['out'])
})

const noPodman =
  skip !== false
    ? skip
    : spawnSync('podman', ['--version']).status !== 0 && 'needs podman (packages podman, buildah)'

test(t, 'containers', { skip: noPodman }, async t => {
  const { top } = scratch(t, 'bench')
  const out = `${top}/out`
  const where = ['--dir', top, '--out', out, '--processors', 'free']
  const { stderr } = await bench(...TINY, ...where, '--only', 'tsoverlay,containers-8,build')
  const report = reportIn(out)
  if (report.failures.some(({ reason }) => /podman/.test(reason))) {
    t.comment(`podman runs no container here: ${stderr}`)
  } else {
    t.same(report.failures, [])
    t.equal(report.rows.length, report.leftOut.length === 0 ? 2 : 0)
    for (const row of report.rows) {
      const [cold, started] = statesOf(row, 'tsoverlay').toSorted()
      t.same([cold, started].includes('first'), true, row.title)
    }
  }
  nothingIsLeft(t, top, ['out'])
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

test(t, 'interrupted while it runs on ext4', { skip: noImages }, async t => {
  const { top } = scratch(t, 'bench')
  const where = ['--dir', top, '--out', `${top}/out`, '--processors', 'free', '--medium', 'ext4']
  const child = spawnNode([launcher, ...TINY, ...where, '--only', 'tsoverlay,walk'])
  const ended = outcomeOf(child)
  await waitUntil('a mount', () =>
    mountTable(`${top}/`).some(line => line.includes('/ext4/') && line.includes('fuse.tsoverlay')),
  )
  child.kill('SIGINT')
  t.equal((await ended).status, 130)
  nothingIsLeft(t, top, [])
})

t.test('arguments', async t => {
  const bad = [['--rounds=0'], ['--only=nonsense'], ['--peer=x'], ['--medium=x']]
  const outcomes = await Promise.all([['--help'], ...bad].map(args => bench(...args)))
  t.match(outcomes.shift(), { status: 0, stdout: /^usage:/ })
  for (const outcome of outcomes) t.match(outcome, { status: 2, stderr: /^usage:/m })
})

/**
 * The command `npm run bench`. It starts a process for each pass (all processors, or pinned to
 * one), and writes the report. Exit status 0: everything that this project and the kernel have to
 * support was measured; 1: some of it failed; 2: bad arguments.
 */

import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'
import { jobs } from '../containers/jobs.js'
import { markdown } from '../report/markdown.js'
import { readmeTables, withTables } from '../report/readme.js'
import { machine, rowsOf, serialized, type Report } from '../report/report.js'
import type { System } from '../systems/system.js'
import { works } from '../works/index.js'
import { titlesOf } from '../works/work.js'
import { cli, plainEnvironment, root } from './environment.js'
import {
  readOptions,
  UNSHARE,
  UsageError,
  USAGE,
  type Options,
  type Pass,
  type Plan,
} from './options.js'
import { clearLine, show } from './progress.js'
import type { Failure, Message, Sample } from './records.js'

const refuse = (text: string): never => {
  process.stderr.write(`${text}\n`)
  process.exit(2)
}

/**
 * The processors that this process may use. The last one is the least likely to serve interrupts.
 */
const lastProcessor = (): string =>
  /^Cpus_allowed_list:.*?(\d+)$/m.exec(fs.readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '0'

const interrupt = { signal: null as NodeJS.Signals | null }

/** The results of a pass. */
interface Found {
  samples: Sample[]
  failures: Failure[]
}

/** The command line prefix of a pass. */
const startOf = (pass: Pass): readonly string[] => {
  if (pass === 'pinned') return ['taskset', '-c', lastProcessor()]
  return pass === 'rootless' ? UNSHARE : []
}

/** A user namespace may mount a tmpfs but no image. podman uses other settings there. */
const planOf = (pass: Pass, plan: Plan): Plan =>
  pass !== 'rootless'
    ? plan
    : {
        ...plan,
        rootless: true,
        medium: 'tmpfs',
        works: plan.works.filter(name => works.some(work => work.name === name)),
      }

/** Runs a pass to its end. If it fails, its earlier results are still used. */
const runPass = (pass: Pass, plan: Plan): Promise<Found> => {
  const found: Found = { samples: [], failures: [] }
  const words = [
    ...startOf(pass),
    process.execPath,
    fileURLToPath(new URL('pass.js', import.meta.url)),
    JSON.stringify(planOf(pass, plan)),
  ]
  const [program = '', ...args] = words
  return new Promise(resolve => {
    const fail = (why: string): void => {
      process.stderr.write(`${pass}: ${why}\n`)
      process.exitCode = 1
      resolve(found)
    }
    const child = spawn(program, args, {
      env: plainEnvironment(),
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    const startedAt = performance.now()
    const onSignal = (signal: NodeJS.Signals): void => {
      interrupt.signal = signal
      child.kill(signal)
    }
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
    for (const signal of signals) process.on(signal, onSignal)
    child.on('message', (message: Message) => {
      if (message.type === 'sample') found.samples.push(message)
      else if (message.type === 'failure') found.failures.push(message)
      else show(pass, message, startedAt)
    })
    child.on('error', error => fail(error.message))
    child.on('close', (status, signal) => {
      clearLine()
      for (const name of signals) process.off(name, onSignal)
      // The pass was interrupted and has removed its files; no report is written.
      if (interrupt.signal !== null) process.exit(130)
      if (status === 0) resolve(found)
      else fail(`ended with ${signal ?? `status ${status}`}`)
    })
  })
}

/** One line with a name and its description. */
const line = (name: string, text: string): string => `  ${name.padEnd(24)} ${text}\n`

/** The output of `--list`. */
const list = ({ systems, plan, leftOut }: Options): string => {
  const titles = [
    ...works.map(work => [work.name, titlesOf(work).map(([, title]) => title)] as const),
    ...jobs.map(({ name, title }) => [name, [title]] as const),
  ]
  return [
    'file systems\n',
    ...systems.map(({ name, version }) => line(name, version)),
    'works\n',
    ...titles
      .filter(([name]) => plan.works.includes(name))
      .map(([name, all]) => line(name, all.join('; '))),
    ...leftOut.map(({ name, reason }) => line(name, `left out: ${reason}`)),
  ].join('')
}

/** The command as a user would type it: with the program's name instead of its path. */
const shown = ({ command }: System): string => {
  const places = { lowers: ['{lower}'], upper: '{upper}', work: '{work}', mountpoint: '{mnt}' }
  const [program = '', ...words] = command(places)
  return [path.basename(program), ...words].join(' ')
}

const measure = async ({ plan, passes, systems, leftOut }: Options): Promise<Report> => {
  const { medium, rounds, scale, option } = plan
  const report: Report = {
    date: new Date().toISOString(),
    machine: machine(),
    options: { medium, rounds, scale, option },
    systems: systems.map(system => ({
      name: system.name,
      version: system.version,
      command: shown(system),
    })),
    rows: [],
    failures: [],
    leftOut,
  }
  for (const pass of passes) {
    const { samples, failures } = await runPass(pass, plan)
    report.rows.push(...rowsOf(pass, samples))
    for (const { type: _type, ...failure } of failures)
      report.failures.push({ processors: pass, ...failure })
  }
  return report
}

const main = async (): Promise<void> => {
  const options = readOptions()
  if (options === null) return void process.stdout.write(USAGE)
  if (options.list) return void process.stdout.write(list(options))
  if (process.geteuid?.() !== 0) refuse('the benchmark mounts: run it as root')
  if (!fs.existsSync('/dev/fuse')) refuse('the benchmark needs /dev/fuse')
  if (!fs.existsSync(cli)) refuse('the program is not built: npm run build')

  const report = await measure(options)
  fs.mkdirSync(options.out, { recursive: true })
  const tables = markdown(report)
  fs.writeFileSync(`${options.out}/report.json`, serialized(report))
  fs.writeFileSync(`${options.out}/report.md`, tables)
  if (options.readme) {
    const readme = `${root}/README.md`
    fs.writeFileSync(readme, withTables(fs.readFileSync(readme, 'utf8'), readmeTables(report)))
  }
  process.stdout.write(tables)
  const peers = new Set(options.systems.filter(({ kind }) => kind === 'peer').map(s => s.name))
  if (report.failures.some(({ system }) => !peers.has(system))) process.exitCode = 1
}

try {
  await main()
} catch (error) {
  if (error instanceof UsageError) refuse(`${error.message}\n${USAGE}`)
  throw error
}

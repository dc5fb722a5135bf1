/**
 * The command `npm run bench`. It starts itself again for each pass: pinned to one processor, with
 * all processors, and to count requests; and writes the report. Exit status 0: all was measured that this
 * project and the kernel have to do; 1: something of it failed; 2: bad arguments.
 */

import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'
import { markdown } from '../report/markdown.js'
import { countsOf, machine, meansOf, rowsOf, titlesOf, type Report } from '../report/results.js'
import { svg } from '../report/svg.js'
import { findSystems } from '../systems/index.js'
import type { System } from '../systems/system.js'
import { workloads } from '../workloads/index.js'
import { MEMORY } from '../workloads/seen.js'
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
import type { Failure, Memory, Message, Requests, Sample } from './records.js'

const refuse = (text: string): never => {
  process.stderr.write(`${text}\n`)
  process.exit(2)
}

/** Processors that this process may use; the last one is the least likely to serve interrupts. */
const lastProcessor = (): string =>
  /^Cpus_allowed_list:.*?(\d+)$/m.exec(fs.readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '0'

const interrupt = { signal: null as NodeJS.Signals | null }

/** What a pass has found. */
interface Found {
  samples: Sample[]
  failures: Failure[]
  requests: Requests[]
  memory: Memory[]
}

/** Runs a process that measures, to its end. What it had found until it failed counts all the same. */
const runChild = (
  entry: string,
  title: string,
  plan: Plan,
  around: readonly string[] = [],
): Promise<Found> => {
  const found: Found = { samples: [], failures: [], requests: [], memory: [] }
  const words = [
    ...around,
    process.execPath,
    fileURLToPath(new URL(entry, import.meta.url)),
    JSON.stringify(plan),
  ]
  const [program = '', ...args] = words
  return new Promise(resolve => {
    const fail = (why: string): void => {
      process.stderr.write(`${title}: ${why}\n`)
      process.exitCode = 1
      resolve(found)
    }
    const child = spawn(program, args, {
      env: { ...plainEnvironment(), TSOVERLAY_SERVER: '' },
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
      else if (message.type === 'requests') found.requests.push(message)
      else if (message.type === 'memory') found.memory.push(message)
      else show(title, message, startedAt)
    })
    child.on('error', error => fail(error.message))
    child.on('close', (status, signal) => {
      clearLine()
      for (const name of signals) process.off(name, onSignal)
      // It has tidied up; nothing is reported of what it had measured by then.
      if (interrupt.signal !== null) process.exit(130)
      if (status === 0) resolve(found)
      else fail(`ended with ${signal ?? `status ${status}`}`)
    })
  })
}

/** What a pass is started by. */
const startOf = (pass: Pass): readonly string[] => {
  if (pass === 'pinned') return ['taskset', '-c', lastProcessor()]
  return pass === 'rootless' ? UNSHARE : []
}

/** A user namespace may mount a tmpfs, and no image. */
const planOf = (pass: Pass, plan: Plan): Plan =>
  pass === 'rootless' ? { ...plan, rootless: true, media: ['tmpfs'] } : plan

/** A name and what there is to say about it. */
const line = (name: string, text: string): string => `  ${name.padEnd(24)} ${text}\n`

/** What `--list` shows. */
const list = ({ systems, plan, leftOut }: Options): string => {
  const steps = workloads
    .filter(({ name }) => plan.workloads.includes(name))
    .map(workload =>
      line(
        workload.name,
        titlesOf(workload)
          .map(([, title]) => title)
          .join('; '),
      ),
    )
  if (plan.memory) steps.push(line(MEMORY, 'memory of a server for each file that is looked at'))
  steps.push(...leftOut.map(({ name, reason }) => line(name, `left out: ${reason}`)))
  return `file systems\n${systems.map(({ name, version }) => line(name, version)).join('')}workloads\n${steps.join('')}`
}

/** As somebody else would type it: programs by their names, own files from the repository's folder on. */
const shown = (command: System['command'] | undefined): string | null => {
  const places = { lowers: ['{lower}'], upper: '{upper}', work: '{work}', mountpoint: '{mnt}' }
  const [program, ...words] = command?.(places) ?? []
  if (program === undefined) return null
  const own = words.map(word => (word.startsWith(`${root}/`) ? path.relative(root, word) : word))
  return [path.basename(program), ...own].join(' ')
}

const measure = async ({ plan, passes, systems, leftOut }: Options): Promise<Report> => {
  const rootless = passes.includes('rootless') ? findSystems(plan.peers, true) : []
  const report: Report = {
    date: new Date().toISOString(),
    machine: machine(),
    options: { rounds: plan.rounds, scale: plan.scale },
    systems: systems.map(({ name, version, command }) => ({
      name,
      version,
      command: shown(command),
      rootlessCommand: shown(rootless.find(other => other.name === name)?.command),
    })),
    rows: [],
    means: [],
    requests: [],
    memory: [],
    failures: [],
    leftOut,
  }
  const addFailures = (failures: Failure[], processors: Report['failures'][0]['processors']) => {
    for (const { type: _type, ...failure } of failures)
      report.failures.push({ ...failure, processors })
  }
  if (systems.some(({ kind }) => kind === 'own')) {
    const { requests, failures } = await runChild('../measure/count-main.js', 'counting', plan)
    report.requests = countsOf(requests)
    addFailures(failures, 'counting')
  }
  if (plan.memory && systems.some(({ kind }) => kind !== 'kernel')) {
    const { memory, failures } = await runChild('../measure/memory-main.js', 'memory', plan)
    report.memory = memory.map(({ type: _type, ...found }) => found)
    addFailures(failures, 'memory')
  }
  for (const pass of passes) {
    const found = await runChild('pass.js', pass, planOf(pass, plan), startOf(pass))
    report.rows.push(...rowsOf(plan, pass, found.samples))
    addFailures(found.failures, pass)
  }
  report.means = meansOf(report.rows)
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
  fs.writeFileSync(`${options.out}/latest.json`, `${JSON.stringify(report, null, 2)}\n`)
  fs.writeFileSync(`${options.out}/latest.md`, tables)
  fs.writeFileSync(`${options.out}/latest.svg`, svg(report))
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

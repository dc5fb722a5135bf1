// Compiles the fault injection, runs it in several processes and sums up their results.
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readlinkSync, rmdirSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

/** The id -1 ("none") can't be mapped; all others are mapped to themselves. */
const ALL_IDS = '0 0 4294967294'
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP']

const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '../..')
const out = join(root, 'node_modules/.cache/tsoverlay-faults')
const main = join(out, 'test/faults/main.js')

const compile = () => {
  const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')
  const compiled = spawnSync(process.execPath, [tsc, '-p', join(here, 'tsconfig.json')], {
    stdio: 'inherit',
  })
  if (compiled.status !== 0) process.exit(2)
  mkdirSync(out, { recursive: true })
  writeFileSync(join(out, 'package.json'), '{"type":"module"}\n')
}

const namespaceOf = pid => readlinkSync(`/proc/${pid}/ns/user`)

/** Maps the ids of a process in a user namespace, and lets it continue. */
const giveIds = async child => {
  child.stdin.on('error', () => {})
  while (child.exitCode === null && namespaceOf(child.pid) === namespaceOf('self')) await sleep(5)
  if (child.exitCode !== null) return
  for (const map of ['uid_map', 'gid_map']) writeFileSync(`/proc/${child.pid}/${map}`, ALL_IDS)
  child.stdin.end('\n')
}

/**
 * The command prefix of a mode. The ids of a user namespace are mapped after it has been created,
 * because a program without mapped ids loses its capabilities at exec.
 */
const AS_ROOT = []
const AS_USER = ['setpriv', '--reuid=1000', '--regid=1000', '--clear-groups']
const WHEN_TOLD = ['sh', '-c', 'read -r _ && exec "$@" </dev/null', 'sh']
const IN_NAMESPACE = ['unshare', '--user', '--mount', '--propagation', 'private', ...WHEN_TOLD]
const prefixOf = mode => (mode === 'user' ? AS_USER : mode === 'userns' ? IN_NAMESPACE : AS_ROOT)

/** Runs one process. Returns its status and results. */
const run = (prefix, args) =>
  new Promise(resolve => {
    // Forked copies of it have a single thread.
    const [program, ...rest] = [...prefix, process.execPath, '--single-threaded', main, ...args]
    const child = spawn(program, rest, {
      stdio: [prefix === IN_NAMESPACE ? 'pipe' : 'ignore', 'inherit', 'inherit', 'pipe'],
      env: { ...process.env, UV_USE_IO_URING: '0' },
    })
    let text = ''
    child.stdio[3].setEncoding('utf8').on('data', part => (text += part))
    child.on('error', error => resolve({ status: 2, found: console.error(error.message) }))
    child.on('close', status =>
      resolve({ status: status ?? 1, found: text === '' ? undefined : JSON.parse(text) }),
    )
    for (const signal of SIGNALS) process.on(signal, () => child.kill(signal))
    if (prefix === IN_NAMESPACE) void giveIds(child)
  })

/** Runs `use` with a tmpfs that belongs to the ordinary user. */
const withTmpfs = async (dir, use) => {
  const path = mkdtempSync(join(dir, 'tsoverlay-faults-'))
  const options = 'noatime,mode=755,uid=1000,gid=1000'
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'faults', path], {
    stdio: 'inherit',
  })
  if (mounted.status !== 0) process.exit(2)
  try {
    return await use(path)
  } finally {
    spawnSync('umount', ['-l', path], { stdio: 'inherit' })
    rmdirSync(path)
  }
}

compile()
const { MODES } = await import(join(out, 'test/faults/modes.js'))
const args = process.argv.slice(2)
const { values: given } = parseArgs({
  args,
  strict: false,
  options: { jobs: { type: 'string' }, mode: { type: 'string' }, dir: { type: 'string' } },
})
const jobs = Number(given.jobs ?? 2)
if (args.includes('--help') || !(jobs >= 1)) {
  spawnSync(process.execPath, [main, '--help'], { stdio: 'inherit' })
  process.exit(args.includes('--help') ? 0 : 2)
}
const start = performance.now()
const wanted = given.mode?.split(',') ?? MODES
const results = []
for (const prefix of [AS_ROOT, AS_USER, IN_NAMESPACE]) {
  const modes = wanted.filter(mode => prefixOf(mode) === prefix)
  if (modes.length === 0) continue
  const all = Array.from({ length: jobs }, (_, i) =>
    args.concat('--mode', modes.join(), '--share', `${i + 1}/${jobs}`),
  )
  const runs = all.map(each =>
    prefix === AS_USER
      ? withTmpfs(given.dir ?? tmpdir(), path => run(prefix, [...each, '--tmpfs', path]))
      : run(prefix, each),
  )
  results.push(...(await Promise.all(runs)))
}
const total = { operations: 0, failures: 0, survived: 0, kills: 0, known: 0 }
const places = new Map()
let faults = 0
for (const { found } of results) {
  if (found === undefined) continue
  for (const key of Object.keys(total)) total[key] += found.counts[key]
  faults += found.faults
  for (const [where, times] of found.told) places.set(where, (places.get(where) ?? 0) + times)
}
for (const [where, times] of [...places].toSorted((a, b) => b[1] - a[1]))
  console.log(`${times} times at ${where}`)
const { operations, failures, survived, kills, known } = total
console.log(
  `${operations} operations, ${failures} failures (${survived} of them survived), ${kills} kills: ${faults} faults, ${known} known (${Math.round((performance.now() - start) / 1000)} s)`,
)
process.exitCode = Math.max(0, ...results.map(({ status }) => status))

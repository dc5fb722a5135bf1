/**
 * The command `npm run soak`: many clients mount and unmount at the same time through one resident
 * server. Some are killed at a random moment, some are stopped for a while. Each live mount must
 * show its own files. At the end nothing may be left: no mount, process, file or descriptor, and no
 * growth of memory. Exit status 0: success; 1: an error; 2: bad arguments.
 */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { markersOf } from '../../src/host/markers.js'
import { descriptorsOf } from '../../src/sys/descriptors.js'

const USAGE = `usage: npm run soak -- [options]
  --clients N      how many at once (50)
  --mounts N       how many mounts in all, after some of each client (1000)
  --seed N         what is done with each, and when (random; it is printed)
  --memory MIB     how much more the server may have at the end than after those first mounts (10)
  --dir DIR        where to work (TMPDIR)
`

const usage = (text: string, status: number): never => {
  process.stderr.write(text)
  return process.exit(status)
}

const parse = () => {
  try {
    return parseArgs({
      options: {
        clients: { type: 'string', default: '50' },
        mounts: { type: 'string', default: '1000' },
        seed: { type: 'string', default: String(Math.floor(Math.random() * 1e6)) },
        memory: { type: 'string', default: '10' },
        dir: { type: 'string', default: tmpdir() },
        // Set by launch.mjs.
        program: { type: 'string', default: 'tsoverlay' },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    return usage(`${String(error)}\n${USAGE}`, 2)
  }
}
const given = parse()
if (given.help) usage(USAGE, 0)
const [clients, mounts, seed, mostMemory] = (['clients', 'mounts', 'seed', 'memory'] as const).map(
  name => {
    const n = Number(given[name])
    return Number.isSafeInteger(n) && n >= 0 ? n : usage(`--${name}: a number\n${USAGE}`, 2)
  },
) as [number, number, number, number]

/** The time limit of a single wait on a busy machine, in milliseconds. */
const WAIT_MS = 60_000
/** The maximum delay before an ordinary signal: about the duration of a mount. */
const MAX_DELAY_MS = 120
/**
 * A client gives up if the server has not taken its request within 10 s. A stopped client must not
 * exceed that.
 */
const STOP_MS = 1500

/** Mounts of each client before the server's memory and descriptors are noted. */
const WARM_ROUNDS = 4
/** What a further thread of the server may take: memory in MiB, and descriptors. */
const THREAD_MIB = 12
const THREAD_DESCRIPTORS = 6

const name = `tsoverlay-soak-${process.pid}`
const runtime = `/run/${name}`
const top = fs.realpathSync(fs.mkdtempSync(`${given.dir}/tsoverlay-soak-`))
const { NODE_OPTIONS: _, ...plain } = process.env
const env = { ...plain, TSOVERLAY_SERVER: name }

let faults = 0
const fault = (text: string): void => {
  faults++
  console.log(`FAULT ${text}`)
}

const until = async (what: string, condition: () => boolean): Promise<boolean> => {
  for (const end = Date.now() + WAIT_MS; Date.now() < end; await pause(20))
    if (condition()) return true
  fault(`waited in vain: ${what}`)
  return false
}

/**
 * Pseudo-random numbers from a seed (mulberry32), so that each client's actions are independent of
 * the others.
 */
const randomOf = (start: number) => {
  let state = start
  return (below: number): number => {
    state = (state + 0x6d2b79f5) | 0
    let x = Math.imul(state ^ (state >>> 15), state | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return Math.floor((((x ^ (x >>> 14)) >>> 0) / 2 ** 32) * below)
  }
}
type Random = ReturnType<typeof randomOf>

interface Directories {
  id: string
  top: string
  lower: string
  upper: string
  work: string
  merged: string
}

const directoriesOf = (id: string): Directories => {
  const own = `${top}/${id}`
  const f = {
    id,
    top: own,
    lower: `${own}/l`,
    upper: `${own}/u`,
    work: `${own}/w`,
    merged: `${own}/m`,
  }
  for (const directory of [f.lower, f.upper, f.work, f.merged])
    fs.mkdirSync(directory, { recursive: true })
  fs.writeFileSync(`${f.lower}/which`, id)
  fs.writeFileSync(`${f.lower}/gone`, id)
  return f
}

const mountpoints = (): Set<string> =>
  new Set(
    fs
      .readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map(line => line.split(' ')[4] ?? '')
      .filter(path => path.startsWith(`${top}/`)),
  )

interface Client {
  child: ChildProcess
  ended: Promise<string>
  errors: () => string
}

const start = (f: Directories): Client => {
  const options = `lowerdir=${f.lower},upperdir=${f.upper},workdir=${f.work}`
  const child = spawn(given.program, ['mount', '-o', options, f.merged], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let text = ''
  child.stderr.setEncoding('utf8').on('data', (part: string) => (text += part))
  const ended = (async () => {
    const [status, signal] = (await once(child, 'exit')) as [number | null, string | null]
    return String(signal ?? status)
  })()
  return { child, ended, errors: () => text.trim() }
}

/** Uses a mount and unmounts it, with or without an open file. */
const use = async (f: Directories, random: Random): Promise<void> => {
  try {
    if (fs.readFileSync(`${f.merged}/which`, 'utf8') !== f.id) fault(`${f.id}: files of another`)
    fs.appendFileSync(`${f.merged}/which`, ' and more')
    fs.rmSync(`${f.merged}/gone`)
    fs.writeFileSync(`${f.merged}/new`, f.id)
    const isLazy = random(8) === 0
    const open = isLazy ? fs.openSync(`${f.merged}/new`, 'r+') : -1
    const [program, ...args] =
      random(4) === 0 && !isLazy ? [given.program, 'umount'] : ['umount', ...(isLazy ? ['-l'] : [])]
    const umount = spawn(program ?? '', [...args, f.merged], { env, stdio: 'inherit' })
    const [status] = (await once(umount, 'exit')) as [number | null]
    if (status !== 0) fault(`${f.id}: umount: ${status}`)
    if (isLazy) {
      fs.writeSync(open, 'late')
      fs.closeSync(open)
      await until(`${f.id}: the end of its lazy mount`, () => !isServed(f))
    }
    const found = ['which', 'new'].map(file => fs.readFileSync(`${f.upper}/${file}`, 'utf8'))
    const wanted = [`${f.id} and more`, isLazy ? `late${f.id.slice(4)}` : f.id]
    if (found.join() !== wanted.join()) fault(`${f.id}: the upper layer has ${found.join()}`)
    if (!fs.lstatSync(`${f.upper}/gone`).isCharacterDevice()) fault(`${f.id}: no whiteout`)
  } catch (error) {
    fault(`${f.id}: ${String(error)}`)
  }
  if (fs.readFileSync(`${f.lower}/which`, 'utf8') !== f.id) fault(`${f.id}: a lower layer written`)
}

const isServed = (f: Directories): boolean =>
  [...servers()].some(pid => markersOf(pid).some(marker => marker.mountpoint === f.merged))

/** The processes of this run, except this one. */
const processes = (): number[] =>
  fs
    .readdirSync('/proc')
    .map(Number)
    .filter(pid => pid > 0 && pid !== process.pid)
    .filter(pid => {
      try {
        return fs
          .readFileSync(`/proc/${pid}/environ`, 'latin1')
          .split('\0')
          .includes(`TSOVERLAY_SERVER=${name}`)
      } catch {
        return false
      }
    })
const servers = (): number[] => processes().filter(pid => markersOf(pid).length > 0)

const counts = { ordinary: 0, killed: 0, stopped: 0, 'mounted all the same': 0, 'own server': 0 }

const FATAL = ['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGHUP'] as const

/** One mount, from its start to its end. */
const mountOnce = async (f: Directories, random: Random): Promise<void> => {
  const kind = random(10)
  const client = start(f)
  const { child } = client
  if (kind < 3) {
    counts.killed++
    await pause(random(MAX_DELAY_MS))
    child.kill(FATAL[random(FATAL.length)])
  } else if (kind < 5) {
    counts.stopped++
    await pause(random(MAX_DELAY_MS))
    child.kill('SIGSTOP')
    await pause(random(STOP_MS))
    child.kill('SIGCONT')
  } else counts.ordinary++
  const status = await client.ended
  if (client.errors() !== '') fault(`${f.id}: ${client.errors()}`)
  if (kind < 3 && status !== '0') {
    // The union may be mounted, because the server's answer and the signal may cross. If the server
    // takes it back, it has done so when the answer file is gone.
    if (!['8', ...FATAL].includes(status)) fault(`${f.id}: killed, status ${status}`)
    killedMounts.push(f)
    return
  }
  if (status !== '0') return fault(`${f.id}: status ${status}`)
  if (kind < 3) counts['mounted all the same']++
  if (!markersOf(server).some(marker => marker.mountpoint === f.merged)) counts['own server']++
  await use(f, random)
  if (faults === 0) fs.rmSync(f.top, { recursive: true })
}
const killedMounts: Directories[] = []

/** Runs one round, with `clients` mounts at a time. */
const round = async (what: string, many: number): Promise<void> => {
  let next = 0
  const work = async (): Promise<void> => {
    for (let i; (i = next++) < many;)
      await mountOnce(
        directoriesOf(`${what}${i}`),
        randomOf(seed * 7919 + what.length * 104_729 + i),
      )
  }
  await Promise.all(Array.from({ length: Math.min(clients, many) }, work))
  await cleanUpRound()
}

/** Unmounts the leftovers of killed clients, and waits until the server is idle. */
const cleanUpRound = async (): Promise<void> => {
  await until('clients, and servers but the one', () => {
    for (const path of mountpoints()) if (path !== first.merged) spawnSync('umount', [path])
    return processes().every(pid => pid === server) && mountpoints().size === 1
  })
  await until('one mount', () => markersOf(server).length === 1)
  await until('answers that are gone', () => {
    const [directory] = fs.readdirSync(runtime)
    return directory !== undefined && fs.readdirSync(`${runtime}/${directory}`).length === 1
  })
  for (const f of killedMounts.splice(0)) {
    const text = fs.readFileSync(`${f.lower}/which`, 'utf8')
    if (text !== f.id) fault(`${f.id}: a lower layer written`)
    if (faults === 0) fs.rmSync(f.top, { recursive: true })
  }
}

/** Memory of the server, in MiB. */
const memory = (): number => {
  const text = fs.readFileSync(`/proc/${server}/smaps_rollup`, 'latin1')
  return Math.round(Number(/^Pss:\s+(\d+)/m.exec(text)?.[1]) / 102.4) / 10
}
const threads = (): number => fs.readdirSync(`/proc/${server}/task`).length

console.log(`${clients} clients, ${mounts} mounts: --seed ${seed}`)
const begun = Date.now()
const first = directoriesOf('first')
const begin = await start(first).ended
let server = 0
await until('the server', () => {
  server = servers()[0] ?? 0
  return (
    begin === '0' && server > 0 && fs.existsSync(runtime) && fs.readdirSync(runtime).length === 1
  )
})
if (faults === 0) {
  await round('warm', WARM_ROUNDS * clients)
  const before = { memory: memory(), threads: threads(), descriptors: descriptorsOf(server).length }
  await round('soak', mounts)
  if (!fs.existsSync(`/proc/${server}`)) fault('the server is gone')
  else {
    // The server starts another thread for unions when one is busy, up to the number of processors.
    const further = (): number => Math.max(0, threads() - before.threads)
    await until(`less than ${mostMemory} MiB more than ${before.memory}`, () => {
      return memory() <= before.memory + mostMemory + further() * THREAD_MIB
    })
    await until(`${before.descriptors} descriptors`, () => {
      return descriptorsOf(server).length <= before.descriptors + further() * THREAD_DESCRIPTORS
    })
    console.log(
      `memory ${before.memory} -> ${memory()} MiB, threads ${before.threads} -> ${threads()}`,
    )
    if (fs.readFileSync(`${first.merged}/which`, 'utf8') !== 'first') fault('the first mount')
  }
}
for (const path of mountpoints()) spawnSync('umount', ['-l', path])
spawnSync(given.program, ['server', 'stop'], { env })
await until('the end of all processes', () => processes().length === 0)
if (fs.existsSync(runtime)) {
  const left = fs.readdirSync(runtime)
  if (left.length > 0) fault(`left in ${runtime}: ${left.join(' ')}`)
  fs.rmSync(runtime, { recursive: true })
}
for (const pid of processes()) process.kill(pid, 'SIGKILL')
if (faults === 0) fs.rmSync(top, { recursive: true })
else console.log(`kept: ${top}`)
const told = Object.entries(counts).map(([what, n]) => `${n} ${what}`)
console.log(`${told.join(', ')}: ${faults} faults (${Math.round((Date.now() - begun) / 1000)} s)`)
process.exitCode = faults === 0 ? 0 : 1

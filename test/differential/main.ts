/**
 * The command `npm run differential`: random layers, random calls, kernel overlayfs and a candidate
 * side by side. Exit status 0: no difference; 1: a difference; 2: bad arguments.
 */

import { spawn, type ChildProcess } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import * as sys from '../helpers/syscalls.js'
import { TRANSPORTS } from './mounters.js'
import { removeRunDir } from './run.js'
import { inUserNamespace } from './userns.js'
import type { Job, Message } from './worker.js'

const USAGE = `usage: npm run differential -- [options]
  --candidate kernel|tsoverlay|COMMAND   what is compared with the kernel (tsoverlay); in a command
                           {layers} is lowerdir=…[,upperdir=…,workdir=…], {mnt} the mountpoint,
                           {redirect} on or off
  --io cached|passthrough  data mode of tsoverlay (cached)
  --noopen                 files are opened without a message; see no-open.ts
  --transport kernel|fuse-native   its way to the kernel (kernel); what the package fuse-native can't
                           express is left out: see tolerated.ts
  --userns                 both are mounted by root of a user namespace; see userns.ts
  --seeds N                how many runs (10)
  --seed N                 the first seed (random); the others follow it
  --calls N                calls per run (1500)
  --every N                compare the whole trees after so many calls (150)
  --reduce SECONDS         how long to make a divergence small (30)
  --timeout SECONDS        a call that takes longer is a hang (60)
  --dir DIR                where to work (/var/tmp)
  --first                  stop at the first divergence
  --ignore PATTERN         pass over what it matches (of what stands behind DIVERGED)
  --keep                   leave the layers and a file for --replay of a divergence
  --stats                  how often each call came out how
  --replay FILE            run a kept divergence again
`

const fail = (text: string): never => {
  process.stderr.write(`${text}\n${USAGE}`)
  process.exit(2)
}

const parse = () => {
  try {
    return parseArgs({
      options: {
        candidate: { type: 'string', default: 'tsoverlay' },
        io: { type: 'string', default: 'cached' },
        noopen: { type: 'boolean', default: false },
        transport: { type: 'string', default: 'kernel' },
        // launch.mjs has handled this option.
        userns: { type: 'boolean', default: false },
        seeds: { type: 'string', default: '10' },
        seed: { type: 'string' },
        calls: { type: 'string', default: '1500' },
        every: { type: 'string', default: '150' },
        reduce: { type: 'string', default: '30' },
        timeout: { type: 'string', default: '60' },
        dir: { type: 'string', default: '/var/tmp' },
        first: { type: 'boolean', default: false },
        keep: { type: 'boolean', default: false },
        stats: { type: 'boolean', default: false },
        ignore: { type: 'string' },
        replay: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    return fail(error instanceof Error ? error.message : String(error))
  }
}
const options = parse()
if (options.help) {
  process.stdout.write(USAGE)
  process.exit(0)
}
const number = (name: 'seeds' | 'calls' | 'every' | 'reduce' | 'timeout'): number => {
  const value = Number(options[name])
  return Number.isSafeInteger(value) && value >= 0 ? value : fail(`--${name}: not a number`)
}
const transport =
  TRANSPORTS.find(known => known === options.transport) ?? fail('--transport: not known')
const count = options.replay === undefined ? number('seeds') : 1
const first = options.seed === undefined ? Math.floor(Math.random() * 1e9) : Number(options.seed)
if (!Number.isSafeInteger(first)) fail('--seed: not a number')
const hangMs = number('timeout') * 1000

// Access times would show which side has read first, so the directory is a bind mount with noatime.
const dir = mkdtempSync(`${options.dir}/tsoverlay-differential-`)
chmodSync(dir, 0o755)
const mount = (source: string, target: string, type: string | null, flags: number): void => {
  const result = sys.mount(source, target, type, flags, '')
  if (result < 0) throw new Error(`mount of ${target}: errno ${-result}`)
}
const bindNoatime = (): string => {
  mount(dir, dir, null, sys.MS.BIND)
  mount(dir, dir, null, sys.MS.REMOUNT | sys.MS.BIND | sys.MS.NOATIME)
  sys.mount('none', dir, null, sys.MS.PRIVATE, '')
  return dir
}
/** In a user namespace the atime flags of another file system's mount can't be changed. */
const ownTmpfs = (): string => {
  const layers = `${dir}/layers`
  mkdirSync(layers)
  mount('tmpfs', layers, 'tmpfs', sys.MS.NOATIME)
  chmodSync(layers, 0o755)
  return layers
}
const work = inUserNamespace ? ownTmpfs() : bindNoatime()

/** Mountpoints below the working directory, the innermost first, with their types. */
const mountsBelow = (): { path: string; type: string }[] =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map(line => {
      const [head = '', tail = ''] = line.split(' - ')
      return { path: head.split(' ')[4] ?? '', type: tail.split(' ')[0] ?? '' }
    })
    .filter(({ path }) => path === dir || path.startsWith(`${dir}/`))
    .toReversed()

let calling: ChildProcess | null = null
/** Kills the calling process, which may be blocked in a call. */
const endCalling = (): void => {
  const pid = calling?.pid
  if (pid === undefined || calling?.kill('SIGKILL') !== true) return
  const gone = (): boolean => {
    try {
      return /^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
    } catch {
      return true
    }
  }
  for (let tries = 0; tries < 100 && !gone(); tries++) {
    if (tries === 20) abortUnions()
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20)
  }
}

const cleanUp = (): void => {
  endCalling()
  for (const { path } of mountsBelow())
    if (sys.umount(path, sys.MNT.NOFOLLOW) !== 0) {
      sys.umount(path, sys.MNT.FORCE | sys.MNT.NOFOLLOW)
      sys.umount(path, sys.MNT.DETACH | sys.MNT.NOFOLLOW)
    }
  if (!options.keep) removeRunDir(dir)
}

/** Ends a hang: every call on the union returns an error. */
const abortUnions = (): void => {
  for (const { path, type } of mountsBelow())
    if (type.startsWith('fuse')) sys.umount(path, sys.MNT.FORCE | sys.MNT.NOFOLLOW)
}

const showTally = (counts: Record<string, number>): string => {
  const rows = new Map<string, [string, number][]>()
  for (const [key, times] of Object.entries(counts)) {
    const [op = '', result = ''] = key.split(' ')
    rows.set(op, [...(rows.get(op) ?? []), [result, times]])
  }
  return [...rows]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([op, results]) => {
      const shown = results.toSorted((a, b) => b[1] - a[1]).map(([r, n]) => `${r} ${n}`)
      return `${op.padEnd(12)} ${shown.join('  ')}\n`
    })
    .join('')
}

let diverged = 0
const tally: Record<string, number> = {}
const signatures = new Map<string, number>()

const runSeeds = (seeds: number[]): Promise<{ left: number[] }> =>
  new Promise((resolve, reject) => {
    const job: Job = {
      dir: work,
      cases: dir,
      seeds,
      calls: number('calls'),
      every: Math.max(1, number('every')),
      io: options.io,
      noOpen: options.noopen,
      candidate: options.candidate,
      transport,
      reduceSeconds: number('reduce'),
      keep: options.keep,
      ignore: options.ignore ?? null,
      replay: options.replay ?? null,
    }
    const child = spawn(
      process.execPath,
      [fileURLToPath(new URL('worker.js', import.meta.url)), JSON.stringify(job)],
      { stdio: ['ignore', 'inherit', 'inherit', 'pipe'] },
    )
    let at = { seed: seeds[0] ?? 0, step: -1 }
    const left = [...seeds]
    let hangs = 0
    const onHang = (): void => {
      hangs++
      process.stdout.write(
        `seed ${at.seed}: no call came back for ${hangMs / 1000} s after step ${at.step}\n`,
      )
      if (hangs > 1) child.kill('SIGKILL')
      abortUnions()
      timer = setTimeout(onHang, hangMs)
    }
    let timer = setTimeout(onHang, hangMs)
    calling = child
    const pipe = child.stdio[3] as Readable
    createInterface({ input: pipe }).on('line', line => {
      clearTimeout(timer)
      timer = setTimeout(onHang, hangMs)
      const message = JSON.parse(line) as Message
      if (message.type === 'alive') {
        at = message
        return
      }
      left.shift()
      for (const [key, times] of Object.entries(message.tally))
        tally[key] = (tally[key] ?? 0) + times
      const rate = Math.round(message.calls / message.seconds)
      const what = message.report === null ? 'ok' : `DIVERGED ${message.signature}`
      process.stdout.write(
        `seed ${message.seed}: ${message.calls} calls, ${message.seconds.toFixed(1)} s, ${rate} calls/s: ${what}\n`,
      )
      if (message.report === null) return
      diverged++
      signatures.set(message.signature, (signatures.get(message.signature) ?? 0) + 1)
      process.stdout.write(`${message.report}\n`)
      if (options.first) child.kill('SIGKILL')
    })
    child.on('error', reject)
    child.on('close', (status, signal) => {
      clearTimeout(timer)
      calling = null
      if (status === 0 || options.first) return resolve({ left: [] })
      diverged++
      process.stdout.write(
        `seed ${left[0] ?? 0}: the calling process ended with ${signal ?? status} after step ${at.step}\n`,
      )
      return resolve({ left: left.slice(1) })
    })
  })

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => {
    process.exitCode = 130
    process.exit()
  })
process.on('exit', cleanUp)
process.stdout.on('error', () => process.exit(1))

process.stdout.write(
  `${inUserNamespace ? 'in a user namespace: ' : ''}kernel overlayfs and ${options.candidate}${options.candidate === 'tsoverlay' ? ` io=${options.io}${options.noopen ? ',noopen' : ''} transport=${transport}` : ''}: ` +
    `${count} runs of ${options.calls} calls, --seed ${first}\n`,
)
for (let left = Array.from({ length: count }, (_, i) => first + i); left.length > 0;) {
  const result = await runSeeds(left)
  left = result.left
}
if (options.stats) process.stdout.write(showTally(tally))
for (const [text, times] of [...signatures].toSorted((a, b) => b[1] - a[1]))
  process.stdout.write(`${times} times: ${text}\n`)
process.stdout.write(`${count - diverged} runs without a difference, ${diverged} diverged\n`)
process.exitCode = diverged === 0 ? 0 : 1

/**
 * A first comparison of unions on the same work: kernel overlayfs, tsoverlay in both data modes, and
 * fuse-overlayfs where it is installed. Rounds are interleaved, every round has fresh layers, and the
 * median of each workload is shown beside its ratio to the kernel.
 *
 *     npm run build && node bench/compare.mjs [--rounds 5] [--dir /dev/shm] [--only tsoverlay,kernel]
 */

import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    dir: { type: 'string', default: fs.existsSync('/dev/shm') ? '/dev/shm' : os.tmpdir() },
    only: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  process.stdout.write('usage: node bench/compare.mjs [--rounds N] [--dir DIR] [--only NAME,…]\n')
  process.exit(0)
}

const cli = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url))
const run = (command, args) =>
  execFileSync(command, args, { stdio: ['ignore', 'ignore', 'inherit'] })
const layersOf = at => `lowerdir=${at}/lower,upperdir=${at}/upper,workdir=${at}/work`
const tsoverlay = io => at =>
  run(process.execPath, [cli, 'mount', '-o', `${layersOf(at)},io=${io}`, `${at}/mnt`])

const systems = {
  kernel: at => run('mount', ['-t', 'overlay', 'overlay', '-o', layersOf(at), `${at}/mnt`]),
  'tsoverlay passthrough': tsoverlay('passthrough'),
  'tsoverlay cached': tsoverlay('cached'),
}
const peer = spawnSync('fuse-overlayfs', ['--version'])
if (peer.error === undefined)
  systems['fuse-overlayfs'] = at => run('fuse-overlayfs', ['-o', layersOf(at), `${at}/mnt`])

const FOLDERS = 100
const FILES = 40
const SMALL = Buffer.alloc(4096, 'x')
const LARGE = 128 << 20
const chunk = Buffer.alloc(128 << 10, 'y')

/** The lower layer: 100 folders of 40 small files, and one large file. */
function build(at) {
  for (const name of ['lower', 'upper', 'work', 'mnt']) fs.mkdirSync(path.join(at, name))
  for (let d = 0; d < FOLDERS; d++) {
    fs.mkdirSync(`${at}/lower/d${d}`)
    for (let f = 0; f < FILES; f++) fs.writeFileSync(`${at}/lower/d${d}/f${f}`, SMALL)
  }
  const fd = fs.openSync(`${at}/lower/large`, 'w')
  for (let n = 0; n < LARGE; n += chunk.length) fs.writeSync(fd, chunk)
  fs.closeSync(fd)
}

function eachFile(root, step) {
  for (let d = 0; d < FOLDERS; d++) for (let f = 0; f < FILES; f++) step(`${root}/d${d}/f${f}`)
}

/** As find(1) does it: Node's own stat asks for the time of birth as well. */
const walk = root => run('find', [root, '-size', '+9G', '-printf', 'x'])

function readAll(at) {
  const fd = fs.openSync(at, 'r')
  while (fs.readSync(fd, chunk, 0, chunk.length, null) > 0);
  fs.closeSync(fd)
}

const workloads = {
  'walk with stat, cold': walk,
  'walk with stat, warm': walk,
  'open-read-close, cold': root => eachFile(root, readAll),
  'open-read-close, warm': root => eachFile(root, readAll),
  'stat of missing names': root =>
    eachFile(root, at => fs.statSync(`${at}.missing`, { throwIfNoEntry: false })),
  'create 2,000 files of 4 KiB': root => {
    fs.mkdirSync(`${root}/new`)
    for (let n = 0; n < 2000; n++) fs.writeFileSync(`${root}/new/f${n}`, SMALL)
  },
  'unlink them': root => {
    for (let n = 0; n < 2000; n++) fs.unlinkSync(`${root}/new/f${n}`)
  },
  'copy up 1,000 files by chmod': root => {
    for (let n = 0; n < 1000; n++)
      fs.chmodSync(`${root}/d${n % FOLDERS}/f${(n / FOLDERS) | 0}`, 0o600)
  },
  'unlink 1,000 lower files': root => {
    for (let n = 0; n < 1000; n++)
      fs.unlinkSync(`${root}/d${n % FOLDERS}/f${20 + ((n / FOLDERS) | 0)}`)
  },
  'read 128 MiB, cold': root => readAll(`${root}/large`),
  'read 128 MiB, warm': root => readAll(`${root}/large`),
  'write 128 MiB': root => {
    const fd = fs.openSync(`${root}/written`, 'w')
    for (let n = 0; n < LARGE; n += chunk.length) fs.writeSync(fd, chunk)
    fs.closeSync(fd)
  },
  'append 100 bytes, 2,000 times': root => {
    const fd = fs.openSync(`${root}/log`, 'a')
    for (let n = 0; n < 2000; n++) fs.writeSync(fd, chunk, 0, 100)
    fs.closeSync(fd)
  },
}

const times = new Map()
const names = Object.keys(systems).filter(
  name => values.only === undefined || values.only.split(',').some(part => name.includes(part)),
)
const rounds = Number(values.rounds)
for (let round = 0; round < rounds; round++) {
  for (const name of names) {
    process.stderr.write(`round ${round + 1} of ${rounds}: ${name}          \r`)
    const at = fs.mkdtempSync(path.join(values.dir, 'tsoverlay-bench-'))
    build(at)
    try {
      systems[name](at)
      try {
        for (const [title, work] of Object.entries(workloads)) {
          const start = performance.now()
          work(`${at}/mnt`)
          const ms = performance.now() - start
          const key = `${title}\0${name}`
          times.set(key, [...(times.get(key) ?? []), ms])
        }
      } finally {
        run('umount', [`${at}/mnt`])
      }
    } finally {
      fs.rmSync(at, { recursive: true, maxRetries: 20, retryDelay: 50 })
    }
  }
}

const median = list => list.toSorted((a, b) => a - b)[list.length >> 1]
process.stdout.write(
  `\n| ms, median of ${rounds} | ${names.join(' | ')} |\n|---|${names.map(() => '---:|').join('')}\n`,
)
for (const title of Object.keys(workloads)) {
  const base = times.get(`${title}\0kernel`)
  const cells = names.map(name => {
    const ms = median(times.get(`${title}\0${name}`))
    const ratio =
      base === undefined || name === 'kernel' ? '' : ` (${(ms / median(base)).toFixed(1)}×)`
    return `${ms.toFixed(ms < 10 ? 1 : 0)}${ratio}`
  })
  process.stdout.write(`| ${title} | ${cells.join(' | ')} |\n`)
}

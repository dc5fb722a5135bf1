// Compiles the differential test and runs it. Compiled JavaScript starts much faster than sources
// with a loader.
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, readlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

/** The id -1 ("none") can't be mapped; all others are mapped to themselves. */
const ALL_IDS = '0 0 4294967294'
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP']

const namespaceOf = pid => readlinkSync(`/proc/${pid}/ns/user`)

/** Runs the test as root of a user namespace with a mount namespace, and exits with its status. */
const runInNamespace = async args => {
  const script = 'read -r _ && exec "$@" </dev/null'
  const unshare = ['--user', '--mount', '--propagation', 'private', 'sh', '-c', script, 'sh']
  // A program without mapped ids loses its capabilities at exec, so Node is started after the ids
  // have been mapped.
  const child = spawn('unshare', [...unshare, process.execPath, ...args], {
    stdio: ['pipe', 'inherit', 'inherit'],
  })
  const ended = new Promise(resolve => {
    child.on('error', error => resolve(console.error(error.message) ?? 2))
    child.on('exit', (status, signal) => resolve(signal === null ? status : 1))
  })
  child.stdin.on('error', () => {})
  for (const signal of SIGNALS) process.on(signal, () => child.kill(signal))
  while (
    child.exitCode === null &&
    child.pid !== undefined &&
    namespaceOf(child.pid) === namespaceOf('self')
  )
    await sleep(5)
  if (child.exitCode === null && child.pid !== undefined) {
    for (const map of ['uid_map', 'gid_map']) writeFileSync(`/proc/${child.pid}/${map}`, ALL_IDS)
    child.stdin.end('\n')
  }
  process.exitCode = await ended
}

const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '../..')
const out = join(root, 'node_modules/.cache/tsoverlay-differential')
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')
const compiled = spawnSync(process.execPath, [tsc, '-p', join(here, 'tsconfig.json')], {
  stdio: 'inherit',
})
if (compiled.status !== 0) process.exit(2)
mkdirSync(out, { recursive: true })
writeFileSync(join(out, 'package.json'), '{"type":"module"}\n')
const main = join(out, 'differential/main.js')
process.chdir(root)
if (process.argv.includes('--userns')) await runInNamespace([main, ...process.argv.slice(2)])
else {
  process.argv.splice(1, 1, main)
  await import(main)
}

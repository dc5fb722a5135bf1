// `npm run bench`: compiles the benchmark if it has changed, and runs it. Compiled JavaScript
// starts much faster than sources with a loader, and the benchmark starts processes of its own for
// each pass.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const out = join(here, '../node_modules/.cache/tsoverlay-bench')
/** This file is written after a compilation, so it is newer than all compiled sources. */
const stamp = join(out, 'package.json')

const changed = path => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
const sources = readdirSync(here, { recursive: true }).filter(name => /\.ts$|tsconfig/.test(name))
if (sources.some(name => changed(join(here, name)) >= changed(stamp))) {
  const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')
  const args = [tsc, '-p', join(here, 'tsconfig.json')]
  if (spawnSync(process.execPath, args, { stdio: 'inherit' }).status !== 0) process.exit(2)
  mkdirSync(out, { recursive: true })
  writeFileSync(stamp, '{"type":"module"}\n')
}
await import(join(out, 'run/main.js'))

// Builds in a source tree without writing to it. The build's output is kept in a separate directory
// and is visible again in the next build, which then only builds the rest. `rm -r CACHE` resets it.
// One source tree can serve several such builds: debug and release, or one for each machine that
// mounts the tree read-only.
//
//   node examples/build-cache.mjs SOURCE CACHE COMMAND [ARGUMENT...]
import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'

import { mount } from 'tsoverlay'

const [source, cache, command, ...args] = process.argv.slice(2)
if (command === undefined) {
  console.error('usage: build-cache.mjs SOURCE CACHE COMMAND [ARGUMENT...]')
  process.exit(1)
}

const upper = `${cache}/made`
const work = `${cache}/work`
for (const made of [upper, work]) fs.mkdirSync(made, { recursive: true })
const mountpoint = fs.mkdtempSync(`${tmpdir()}/build-`)
try {
  const tree = await mount({ lower: source, upper, work, mountpoint })
  try {
    const { status, error } = spawnSync(command, args, { cwd: mountpoint, stdio: 'inherit' })
    if (error !== undefined) console.error(error.message)
    process.exitCode = status ?? 1
  } finally {
    await tree.unmount()
  }
} finally {
  fs.rmdirSync(mountpoint)
}

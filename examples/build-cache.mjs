// Builds in a source tree without writing to it. What the build makes is kept in a directory of its
// own and is there again at the next build, which has only the rest to do; `rm -r CACHE` makes
// everything clean. One source tree serves several such builds: debug and release, or one for each
// machine that mounts it read-only.
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

// Runs a command in a copy-on-write view of a directory: tests that write, a dry run. Every change
// that the command makes there is shown and thrown away. It is no sandbox: the command has your
// rights, and everything outside of the directory, also the directory itself by its own path, is
// open to it as ever.
//
//   node examples/throw-away.mjs DIRECTORY COMMAND [ARGUMENT...]
import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'

import { mount } from 'tsoverlay'

const [directory, command, ...args] = process.argv.slice(2)
if (command === undefined) {
  console.error('usage: throw-away.mjs DIRECTORY COMMAND [ARGUMENT...]')
  process.exit(1)
}

const top = fs.mkdtempSync(`${tmpdir()}/throw-away-`)
const [upper, work, mountpoint] = ['upper', 'work', 'view'].map(name => `${top}/${name}`)
for (const made of [upper, work, mountpoint]) fs.mkdirSync(made)
try {
  // Nothing of it has to last, so nothing has to be synced.
  const view = await mount({ lower: directory, upper, work, mountpoint, volatile: true })
  try {
    const { status, error } = spawnSync(command, args, { cwd: mountpoint, stdio: 'inherit' })
    if (error !== undefined) console.error(error.message)
    process.exitCode = status ?? 1
  } finally {
    await view.unmount({ lazy: true }) // also if the command left a process behind
  }
  // All that the command changed lies in the upper directory; a device 0/0 stands for what it
  // removed.
  for (const name of fs.readdirSync(upper, { recursive: true }).toSorted()) {
    const stat = fs.lstatSync(`${upper}/${name}`)
    if (stat.isDirectory()) continue
    const removed = stat.isCharacterDevice() && stat.rdev === 0
    console.log(`${removed ? 'removed' : 'written'} ${name}`)
  }
} finally {
  fs.rmSync(top, { recursive: true })
}

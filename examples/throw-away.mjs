// Runs a command in a copy-on-write view of a directory, for example tests that write, or a dry
// run. It shows the command's changes in the view and discards them. It is not a sandbox: the
// command has your rights, and can write everything outside of the view, including the directory
// under its original path.
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
  // The changes are discarded, so they need no sync.
  const view = await mount({ lower: directory, upper, work, mountpoint, volatile: true })
  try {
    const { status, error } = spawnSync(command, args, { cwd: mountpoint, stdio: 'inherit' })
    if (error !== undefined) console.error(error.message)
    process.exitCode = status ?? 1
  } finally {
    await view.unmount({ lazy: true }) // lazy, because the command may have left a process behind
  }
  // The upper directory contains all changes. A character device 0/0 marks a removed file.
  for (const name of fs.readdirSync(upper, { recursive: true }).toSorted()) {
    const stat = fs.lstatSync(`${upper}/${name}`)
    if (stat.isDirectory()) continue
    const removed = stat.isCharacterDevice() && stat.rdev === 0
    console.log(`${removed ? 'removed' : 'written'} ${name}`)
  }
} finally {
  fs.rmSync(top, { recursive: true })
}

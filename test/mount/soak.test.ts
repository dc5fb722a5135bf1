/**
 * A short run of the soak test: many clients of the resident server, some of which are killed or
 * stopped. `npm run soak` is the full test.
 */

import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import { fileURLToPath } from 'node:url'

import t from 'tap'

import { mountTable, outcomeOf, scratch, skipMounts, test } from '../helpers/mount.js'

const launcher = fileURLToPath(new URL('../soak/launch.mjs', import.meta.url))

test(t, 'soak', { skip: skipMounts }, async t => {
  const { top } = scratch(t, 'soak')
  const { NODE_OPTIONS: _, ...env } = process.env
  const args = [launcher, '--clients', '8', '--mounts', '80', '--dir', top]
  const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const { status, stdout, stderr } = await outcomeOf(child)
  t.equal(status, 0, stdout + stderr)
  t.match(stdout, /: 0 faults \(\d+ s\)\n$/)
  t.comment(stdout)
  t.strictSame(mountTable(top), [])
  t.strictSame(fs.readdirSync(top), [])
})

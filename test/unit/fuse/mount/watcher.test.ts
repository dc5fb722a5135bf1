import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'

import t from 'tap'

import { bundle } from '../../../helpers/bundle.js'
import { waitUntil } from '../../../helpers/mount.js'

const module = bundle(t, 'fuse/mount/watcher')
const namespace = spawnSync('unshare', ['-m', 'true']).status === 0
const skip = !namespace && 'needs a mount namespace'

/**
 * Runs code in a process with three mounts, which is then ended by `signal`. Returns the
 * invocations of fusermount3.
 */
const taken = async (code: string, calls: number): Promise<string[]> => {
  const directory = mkdtempSync(`${tmpdir()}/tsoverlay-watch-`)
  t.teardown(() => rmSync(directory, { recursive: true }))
  // With characters that a shell or mountinfo escapes.
  const points = [`${directory}/it's "a\\ $HOME`, `${directory}/two\nlines`, `${directory}/plain`]
  for (const point of points) mkdirSync(point)
  writeFileSync(`${directory}/fusermount3`, `#!/bin/sh\nprintf '%s\\0' "$*" >>'${directory}/log'\n`)
  chmodSync(`${directory}/fusermount3`, 0o755)
  writeFileSync(
    `${directory}/code.mjs`,
    `import { watchOver } from '${module}'
import { readFileSync } from 'node:fs'
const points = ${JSON.stringify(points)}
const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\\n').map(line => line.split(' '))
const devices = lines.filter(words => words[4]?.startsWith('${directory}/')).map(words => words[2])
const watch = index => watchOver(points[index], devices[index])
${code}
setTimeout(() => process.kill(process.pid, 'SIGKILL'), 300)`,
  )
  const script = `for point; do mount -t tmpfs watched "$point" || exit; done; exec '${process.execPath}' '${directory}/code.mjs'`
  spawnSync('unshare', ['-m', 'sh', '-c', script, 'sh', ...points], {
    env: { PATH: `${directory}:${process.env['PATH'] ?? ''}` },
    timeout: 60_000,
  })
  const log = (): string[] =>
    existsSync(`${directory}/log`)
      ? readFileSync(`${directory}/log`, 'utf8').split('\0').slice(0, -1)
      : []
  await waitUntil('the watcher', () => log().length >= calls)
  return log().map(call => String(points.findIndex(point => call === `-u -z -q -- ${point}`)))
}

t.test('the mounts of a killed process', { skip }, async t => {
  t.strictSame(await taken('watch(0); watch(1); watch(2)', 3), ['0', '1', '2'])
})

t.test('mounts that ended otherwise or are covered', { skip }, async t => {
  const code = "const end = watch(0); watch(1); watchOver(points[2], '0:0'); end(); watch(0)"
  t.strictSame(await taken(code, 2), ['1', '0'])
})

t.test('a new watcher replaces an ended one', { skip }, async t => {
  t.strictSame(await taken('watch(0)(); watch(1)', 1), ['1'])
})

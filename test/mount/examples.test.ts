/** Runs the programs and files of `examples/` as their first comments describe. */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { fileURLToPath } from 'node:url'

import t, { type Test } from 'tap'

import { mountTable, outcomeOf, scratch, skipMounts, spawnNode, test } from '../helpers/mount.js'

const examples = fileURLToPath(new URL('../../examples', import.meta.url))

/** A directory with two files, and a function that runs an example with a TMPDIR of its own. */
const prepare = (t: Test) => {
  const { top } = scratch(t, 'examples')
  const tree = `${top}/tree`
  const tmp = `${top}/tmp`
  for (const directory of [tree, tmp]) fs.mkdirSync(directory)
  for (const name of ['a', 'b']) fs.writeFileSync(`${tree}/${name}`, `${name}\n`)
  const run = async (name: string, ...args: string[]) => {
    const env = { ...process.env, TMPDIR: tmp }
    const outcome = await outcomeOf(spawnNode([`${examples}/${name}`, ...args], { env }))
    t.same(mountTable(top), [], 'nothing is mounted')
    t.same(fs.readdirSync(tmp), [], 'nothing is left')
    t.same(fs.readdirSync(tree), ['a', 'b'], 'the tree is unchanged')
    return outcome
  }
  return { top, tree, run }
}

test(t, 'throw-away.mjs', { skip: skipMounts }, async t => {
  const { tree, run } = prepare(t)
  const command = 'rm a; echo new >b; mkdir d; echo new >d/e; exit 3'
  t.match(await run('throw-away.mjs', tree, 'sh', '-c', command), {
    status: 3,
    stdout: 'removed a\nwritten b\nwritten d/e\n',
    stderr: '',
  })
  t.equal(fs.readFileSync(`${tree}/b`, 'utf8'), 'b\n')
  t.match(await run('throw-away.mjs', tree, 'no-such-command'), { status: 1, stderr: /ENOENT/ })
  t.match(await run('throw-away.mjs', tree), { status: 1, stderr: /^usage: / })
})

test(t, 'build-cache.mjs', { skip: skipMounts }, async t => {
  const { top, tree, run } = prepare(t)
  const command = 'test -e out && echo there || { echo made; cat a b >out; }'
  const build = () => run('build-cache.mjs', tree, `${top}/cache`, 'sh', '-c', command)
  t.match(await build(), { status: 0, stdout: 'made\n', stderr: '' })
  t.match(await build(), { status: 0, stdout: 'there\n', stderr: '' })
  t.equal(fs.readFileSync(`${top}/cache/made/out`, 'utf8'), 'a\nb\n')
  t.match(await run('build-cache.mjs', tree), { status: 1, stderr: /^usage: / })
})

const noSystemd =
  spawnSync('systemd-analyze', ['--version']).status !== 0 && 'needs systemd-analyze'

t.test('units', { skip: noSystemd }, async t => {
  for (const unit of ['mnt-m.mount', 'tsoverlay.service']) {
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', `${examples}/${unit}`], {
      encoding: 'utf8',
    })
    t.equal(status, 0, stderr)
  }
})

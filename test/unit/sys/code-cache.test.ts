import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import { keep, run } from '../../../src/sys/code-cache.js'

const BUILD = '0123456789abcdef'
const source = (value: number, build = BUILD): string =>
  `'use strict'\nconst buildHash = "${build}"\nexports.value = ${value}\nexports.file = __filename\nexports.join = require('node:path').join\n`

/** A file of a build, and the directory of its cached code. */
const setup = (t: Test): { file: string; directory: string; keepIt: () => Promise<string> } => {
  const top = t.testdir({ 'a.cjs': source(1) })
  const [file, directory] = [`${top}/a.cjs`, `${top}/kept`]
  const keepIt = async (): Promise<string> => {
    const { compiled } = run(file, directory)
    if (compiled === undefined) throw new Error('nothing is to be kept')
    await keep(compiled())
    const names = fs.readdirSync(directory)
    t.equal(names.length, 1, 'one file, and no other is left')
    return `${directory}/${names[0]}`
  }
  return { file, directory, keepIt }
}

t.test('a file runs as with require, and with cached code', async t => {
  const { file, directory, keepIt } = setup(t)
  const first = run<{ value: number; file: string; join: unknown }>(file, directory)
  t.match(first, { wasKept: false, exports: { value: 1, file, join: Function } })
  const path = await keepIt()
  t.equal(fs.statSync(path).mode & 0o777, 0o644)
  const second = run(file, directory)
  t.match(second, { wasKept: true, exports: { value: 1, file } })
  t.equal(second.compiled, undefined, 'nothing is to be kept any more')
})

t.test('code of another build is ignored', async t => {
  const { file, directory, keepIt } = setup(t)
  await keepIt()
  // Of the same length, which is the only property of the source that the engine compares.
  fs.writeFileSync(file, source(2, 'fedcba9876543210'))
  t.match(run(file, directory), { wasKept: false, exports: { value: 2 } })
})

t.test('code that another user can have written is ignored', async t => {
  const { file, directory, keepIt } = setup(t)
  const path = await keepIt()
  const counts = (): boolean => run(file, directory).wasKept
  for (const [name, mode] of [
    [path, 0o664],
    [path, 0o646],
    [directory, 0o775],
    [directory, 0o757],
  ] as const) {
    const before = fs.statSync(name).mode & 0o777
    fs.chmodSync(name, mode)
    t.equal(counts(), false, `mode ${mode.toString(8)}`)
    t.equal(run(file, directory).compiled, undefined, 'it is left as it is')
    fs.chmodSync(name, before)
    t.equal(counts(), true)
  }
  fs.renameSync(path, `${path}.real`)
  fs.symlinkSync(`${path}.real`, path)
  t.equal(counts(), false, 'a symlink')
  fs.renameSync(`${path}.real`, path)
  t.equal(counts(), true)
  if (process.geteuid?.() !== 0) return
  for (const name of [path, directory]) {
    fs.chownSync(name, 12345, 12345)
    t.equal(counts(), false, 'of another user')
    fs.chownSync(name, 0, 0)
  }
  fs.chownSync(file, 12345, 12345)
  t.equal(counts(), false, "the package is another user's")
  fs.rmSync(directory, { recursive: true })
  t.equal(run(file, directory).compiled, undefined, 'whose directory is left alone')
})

t.test('damaged code or a missing directory causes no error', async t => {
  const { file, directory, keepIt } = setup(t)
  const path = await keepIt()
  fs.truncateSync(path, 100)
  fs.writeFileSync(file, source(3)) // the engine has not compiled this source in this process
  t.match(run(file, directory), { wasKept: false, exports: { value: 3 } })
  fs.rmSync(directory, { recursive: true })
  const { compiled } = run(file, directory)
  fs.writeFileSync(directory, '')
  if (compiled !== undefined) await keep(compiled())
  t.equal(fs.readFileSync(directory, 'utf8'), '')
  t.match(run(file, directory), { wasKept: false, exports: { value: 3 } })
})

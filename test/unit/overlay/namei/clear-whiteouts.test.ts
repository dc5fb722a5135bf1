/**
 * A job clears a large directory of whiteouts. Any other entry in it stays. Small directories are
 * tested in remove-directory.test.ts.
 */

import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import { E } from '../../../../src/sys/errno.js'
import { unionDirectories } from '../../../helpers/layers.js'
import { optionsOf } from '../../../helpers/union.js'
import * as sys from '../../../helpers/syscalls.js'
import { pendingOf, resultOf, skipUnions, stateOf } from '../support.js'

const MANY = 3000

const withWhiteouts = (t: Test) => {
  const where = unionDirectories(t, { lower: [{ 'd/0': '' }] })
  const directory = `${where.upper}/d`
  fs.mkdirSync(directory)
  sys.mknodat(sys.AT_FDCWD, `${directory}/0`, 0o020000, 0, 0)
  const name = (n: number): string => `${directory}/${String(n).padStart(40, 'x')}`
  for (let n = 1; n < MANY; n++) fs.linkSync(`${directory}/0`, name(n))
  fs.mkdirSync(`${where.upper}/e`)
  const options = { ...optionsOf(where), whiteout: 'char' as const }
  const directories = (): string[] =>
    fs
      .readdirSync(`${where.work}/work`, { withFileTypes: true })
      .filter(entry => entry.isDirectory())
      .map(entry => entry.name)
  return { where, directory, options, directories, ...stateOf(t, options) }
}

for (const [how, again] of [
  ['removed', 'rmdir'],
  ['replaced', 'rename'],
] as const) {
  t.test(`a large directory is ${how}`, { skip: skipUnions }, async t => {
    const { ops, find, directory, directories } = withWhiteouts(t)
    const call = () => (again === 'rmdir' ? ops.rmdir(1, 'd') : ops.rename(1, 'e', 1, 'd', 0))
    find('d')
    const pending = pendingOf(call)
    t.equal(pending.answer, false)
    t.equal(pendingOf(() => ops.rmdir(1, 'd')).answer, false, 'others wait')
    t.equal(await resultOf(pending, () => ops.runCallbacks()), 0)
    t.strictSame(fs.readdirSync(directory), [], 'it is really empty, and still there')
    t.equal(find('d').isDir, true)
    t.equal(call(), 0)
    t.equal(ops.rmdir(1, 'd'), again === 'rmdir' ? -E.ENOENT : 0)
    t.strictSame(directories(), [])
  })

  t.test(`something is put into one that is ${how}`, { skip: skipUnions }, async t => {
    const { ops, find, where, directory, directories } = withWhiteouts(t)
    const call = () => (again === 'rmdir' ? ops.rmdir(1, 'd') : ops.rename(1, 'e', 1, 'd', 0))
    const { ino } = fs.statSync(directory)
    find('d')
    const pending = pendingOf(call)
    const put = (): void => {
      ops.runCallbacks()
      const [moved] = directories()
      if (moved === undefined) return
      const file = `${where.work}/work/${moved}/file`
      if (!fs.existsSync(file)) fs.writeFileSync(file, 'kept')
    }
    t.equal(await resultOf(pending, put), -E.ENOTEMPTY)
    t.equal(fs.statSync(directory).ino, ino, 'it is where it was')
    t.equal(fs.readFileSync(`${directory}/file`, 'latin1'), 'kept')
    t.equal(find('d/file').isReg, true)
    t.strictSame(directories(), [])
  })
}

t.test('the union is closed during the job', { skip: skipUnions }, async t => {
  const { ops, find, directories, close, options, directory } = withWhiteouts(t)
  find('d')
  const { job } = pendingOf(() => ops.rmdir(1, 'd'))
  job.onDone(() => t.fail('nobody is called back'))
  while (directories().length === 0) {
    await new Promise(next => setTimeout(next, 1))
    ops.runCallbacks()
  }
  close()
  const after = stateOf(t, options)
  t.strictSame(directories(), [], 'the next one clears it')
  t.equal(after.find('d').isDir, true)
  t.strictSame(fs.readdirSync(directory), [])
  t.equal(after.ops.rmdir(1, 'd'), 0)
})

/**
 * Removing a directory of the upper layer loses no entry that another process creates in it at the
 * same time (workdir.ts).
 */

import * as fs from 'node:fs'
import t from 'tap'

import { E } from '../../../../src/sys/errno.js'
import { unionDirectories } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { optionsOf } from '../../../helpers/union.js'
import { skipUnions, stateOf } from '../support.js'

t.test('only whiteouts are removed together with a directory', { skip: skipUnions }, async t => {
  for (const whiteout of ['char', 'xattr', 'wh'] as const) {
    const where = unionDirectories(t, { lower: [{ 'd/f': '', 'e/f': '' }] })
    const { u, complaints } = stateOf(t, { ...optionsOf(where), whiteout })
    const { workdir, upper } = u
    if (workdir === null || upper === null) throw new Error('read-only')
    for (const [how, remove] of [
      ['removed', (name: string) => workdir.removeDirectory(upper.fd, name)],
      ['hidden', (name: string) => workdir.whiteout(upper.fd, name, 'directory')],
    ] as const) {
      const name = `${whiteout} ${how}`
      const directory = `${where.upper}/${name}`
      fs.mkdirSync(`${directory}/inner`, { recursive: true })
      fs.writeFileSync(`${directory}/inner/f`, 'kept')
      t.equal(workdir.whiteout(sys.openat(upper.fd, name, sys.O.PATH), 'gone', 'nothing'), 0)
      const before = fs.readdirSync(directory, { recursive: true })
      t.equal(remove(name), -E.ENOTEMPTY, name)
      t.strictSame(
        fs.readdirSync(directory, { recursive: true }),
        before,
        `${name}: all of it is there`,
      )
      t.equal(fs.readFileSync(`${directory}/inner/f`, 'latin1'), 'kept')
      fs.rmSync(`${directory}/inner`, { recursive: true })
      t.equal(remove(name), 0, name)
      const there = sys.lstat(sys.AT_FDCWD, directory)
      t.notOk(typeof there !== 'number' && (there.mode & 0o170000) === 0o040000)
      if (how === 'removed' || whiteout === 'wh') t.equal(there, -E.ENOENT)
    }
    t.strictSame(fs.readdirSync(`${where.work}/work`).length <= 1, true)
    complaints.length = 0
  }
})

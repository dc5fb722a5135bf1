import * as fs from 'node:fs'

import t from 'tap'

import {
  directoryName,
  prepareDirectory,
  runtimeDirectory,
  serverDirectory,
  whyForeign,
  type Owner,
} from '../../../src/resident/runtime-directory.js'

const uid = process.geteuid?.() ?? -1

const directoryOf = (owner: Partial<Owner>): string | undefined =>
  runtimeDirectory({ uid, initial: false, env: {}, ...owner })

t.test('root of the initial namespace has /run, whatever its environment says', async t => {
  const XDG_RUNTIME_DIR = t.testdir()
  for (const env of [{}, { XDG_RUNTIME_DIR }])
    t.equal(directoryOf({ uid: 0, initial: true, env }), '/run/tsoverlay')
})

t.test('others have a directory that is their own, or none', async t => {
  const top = t.testdir({ own: {}, open: {}, file: '' })
  fs.chmodSync(`${top}/own`, 0o700)
  fs.chmodSync(`${top}/open`, 0o755)
  fs.symlinkSync('own', `${top}/link`)
  const at = (XDG_RUNTIME_DIR: string, more: Partial<Owner> = {}): string | undefined =>
    directoryOf({ env: { XDG_RUNTIME_DIR }, ...more })
  t.equal(at(`${top}/own`), `${top}/own/tsoverlay`)
  for (const name of ['open', 'file', 'link', 'none']) t.equal(at(`${top}/${name}`), undefined)
  t.equal(at(`${top}/own`, { uid: uid + 1 }), undefined, 'of another user')
  t.equal(at('own'), undefined, 'relative')
  t.equal(directoryOf({}), undefined, 'no variable')
})

const named = (TSOVERLAY_SERVER: string): string | undefined =>
  directoryOf({ uid: 0, initial: true, env: { TSOVERLAY_SERVER } })

t.test('the name is one component, or nothing is wanted', async t => {
  t.equal(named('x'), '/run/x')
  for (const name of ['', '.', '..', '.x', 'a/b', '../x', '/x'])
    t.equal(named(name), undefined, name)
})

t.test('a directory is made, or must be as it would be made', async t => {
  const top = t.testdir({ open: {}, file: '' })
  t.equal(prepareDirectory(`${top}/new`), undefined)
  t.equal(fs.statSync(`${top}/new`).mode & 0o7777, 0o700)
  t.equal(prepareDirectory(`${top}/new`), undefined, 'it is there')
  fs.chmodSync(`${top}/open`, 0o711)
  t.equal(prepareDirectory(`${top}/open`), 'has mode 711')
  t.equal(prepareDirectory(`${top}/file`), 'is no directory')
  fs.symlinkSync('new', `${top}/link`)
  t.equal(prepareDirectory(`${top}/link`), 'is no directory')
  t.match(prepareDirectory(`${top}/no/such`), 'ENOENT')
  t.equal(whyForeign(`${top}/new`, uid + 1), `belongs to user ${uid}`)
})

t.test('the name of a server tells its build and its namespaces', async t => {
  t.match(directoryName(), /^sources(-\d+){4,5}$/)
  const before = process.env['TSOVERLAY_SERVER']
  process.env['TSOVERLAY_SERVER'] = ''
  t.equal(serverDirectory(), undefined)
  if (before === undefined) delete process.env['TSOVERLAY_SERVER']
  else process.env['TSOVERLAY_SERVER'] = before
})

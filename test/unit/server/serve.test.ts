import * as fs from 'node:fs'

import t from 'tap'

import { startServer } from '../../../src/server/serve.js'
import { defaultTuning } from '../../../src/config/tuning.js'
import { silentLogger } from '../../../src/log.js'
import { defaultUnionOptions } from '../../../src/config/defaults.js'
import { leakedFds, openFds } from '../../helpers/union.js'

/** The main thread's part and the union's thread (worker.ts): a mount that fails. */
t.test('a union that cannot be opened rejects with the thrown error and leaks nothing', async t => {
  const lower = `${t.testdir()}/none`
  const attempt = async (): Promise<void> => {
    const starting = startServer(
      {
        union: { ...defaultUnionOptions, lower: [lower] },
        mountpoint: '/no/such/mountpoint',
        way: 'mount',
        io: 'auto',
        fsname: 'x',
        subtype: 'tsoverlay',
        allowOther: false,
        mountFlags: 0,
        logLevel: 'silent',
        tuning: defaultTuning,
      },
      silentLogger,
    )
    await t.rejects(
      starting,
      fs.existsSync('/dev/fuse') && process.geteuid?.() === 0
        ? { name: 'MountError', option: 'lowerdir', path: lower, code: 'ENOENT' }
        : { name: 'MountError' },
    )
  }
  await attempt() // its thread is kept for the next union
  const before = openFds()
  const listeners = process.listenerCount('exit')
  for (let i = 0; i < 3; i++) await attempt()
  t.strictSame(await leakedFds(before), [])
  t.equal(process.listenerCount('exit'), listeners)
})

import t from 'tap'
import { laterFlags, libfuseOptions } from '../../../src/fuse-native/options.js'
import type { ServeOptions } from '../../../src/server/messages.js'
import { defaultTuning } from '../../../src/config/tuning.js'
import { defaultUnionOptions } from '../../../src/config/defaults.js'
import {
  MS_NOATIME,
  MS_NODEV,
  MS_NODIRATIME,
  MS_NOSUID,
  MS_RDONLY,
} from '../../../src/sys/constants.js'

const base: ServeOptions = {
  union: { ...defaultUnionOptions, lower: ['/l'] },
  mountpoint: '/m',
  way: 'mount',
  io: 'auto',
  fsname: 'tsoverlay',
  subtype: 'tsoverlay',
  allowOther: false,
  mountFlags: 0,
  logLevel: 'info',
  tuning: defaultTuning,
}
const words = (change: Partial<ServeOptions> = {}, flags = 0): string[] =>
  libfuseOptions({ ...base, ...change }, flags)
    .slice(2)
    .split(/(?<!\\),/)

t.test('options for libfuse', async t => {
  t.same(words(), [
    'fsname=tsoverlay',
    'subtype=tsoverlay',
    'default_permissions',
    'nonempty',
    'use_ino',
    'big_writes',
    'max_write=131072',
    'entry_timeout=31536000',
    'negative_timeout=31536000',
    'attr_timeout=0',
    'rw',
    'suid',
    'dev',
    'exec',
  ])
  t.ok(words({ allowOther: true }).includes('allow_other'))
  t.ok(words({ fsname: 'a,b\\c' }).includes('fsname=a\\,b\\\\c'))
  t.notOk(words({ subtype: '' }).some(word => word.startsWith('subtype')))
  t.ok(words({ timeout: 1.5 }).includes('entry_timeout=1.5'))
  t.ok(words({ tuning: { ...defaultTuning, maxWrite: 8192 } }).includes('max_write=8192'))
  const flags = words({}, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOATIME)
  t.same(flags.slice(-5), ['ro', 'nosuid', 'nodev', 'exec', 'noatime'])
})

t.test('flags without a libfuse option', async t => {
  t.equal(laterFlags(MS_RDONLY | MS_NOATIME), 0)
  t.equal(laterFlags(MS_RDONLY | MS_NODIRATIME), MS_RDONLY | MS_NODIRATIME)
  const refused: [Partial<ServeOptions>, RegExp][] = [
    [{ io: 'passthrough' }, /^io=passthrough: .*; use transport=kernel$/],
    [{ mountpoint: `/${'m'.repeat(1023)}` }, /^mountpoint: .*1023 bytes; use transport=kernel$/],
    [{ fsname: 'n'.repeat(1000) }, /^fsname: .*1023 bytes; use transport=kernel$/],
  ]
  for (const [change, message] of refused) {
    t.throws(() => libfuseOptions({ ...base, ...change }, 0), { message, code: 'EINVAL' })
  }
})

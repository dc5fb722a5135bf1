import t from 'tap'
import { MountError } from '../../../src/errors.js'
import {
  plainError,
  remoteLogger,
  reviveError,
  type FromWorker,
} from '../../../src/server/messages.js'
import { mountData, mountedDevice, mountDevice, detach } from '../../../src/fuse/mount/mount.js'
import { DeviceFiles, stackDepthOver } from '../../../src/fuse/device/backing.js'
import { recordingLog } from '../fuse/support.js'

t.test('errors survive structured clone', async t => {
  const error = new MountError('upperdir=/x: no', {
    option: 'upperdir',
    path: '/x',
    code: 'ENOENT',
  })
  const back = reviveError(structuredClone(plainError(error)))
  t.ok(back instanceof MountError)
  t.match(back, { message: 'upperdir=/x: no', option: 'upperdir', path: '/x', code: 'ENOENT' })
  t.equal(back.stack, error.stack)
  const plain = reviveError(plainError(new TypeError('broken')))
  t.notOk(plain instanceof MountError)
  t.equal(plain.message, 'broken')
  t.equal(reviveError(plainError('text')).message, 'text')
  t.same(Object.keys(reviveError(plainError(new MountError('bare')))).toSorted(), [
    'code',
    'name',
    'option',
    'path',
  ])
})

t.test('the log', async t => {
  const sent: FromWorker[] = []
  const log = remoteLogger('info', message => void sent.push(structuredClone(message)))
  log.debug({}, 'not this')
  log.info({ n: 1, big: 2n }, 'a')
  log.warn({ f: () => 1, s: Symbol('s') }, 'b')
  log.error({ err: new Error('broken') }, 'c')
  t.same(
    sent.map(m => (m.type === 'log' ? [m.level, m.message] : [])),
    [
      ['info', 'a'],
      ['warn', 'b'],
      ['error', 'c'],
    ],
  )
  t.match(sent[2], { fields: { err: /Error: broken\n\s+at / } })
  t.same(
    (['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const).map(l => log.isLevelEnabled(l)),
    [false, false, true, true, true, true],
  )
  const none = remoteLogger('silent', () => t.fail('said something'))
  none.error({}, 'x')
})

t.test('the options of mount(2)', async t => {
  t.equal(
    mountData(7, 0, 5, true),
    'fd=7,rootmode=40000,user_id=0,group_id=5,default_permissions,allow_other,max_read=1044480',
  )
  t.equal(
    mountData(7, 1000, 1000, false),
    'fd=7,rootmode=40000,user_id=1000,group_id=1000,default_permissions,max_read=1044480',
  )
})

t.test('an impossible mount', async t => {
  const request = {
    mountpoint: '/nonexistent/x',
    fsname: 'a',
    subtype: '',
    allowOther: false,
    flags: 0,
  }
  t.throws(() => mountDevice(-1, request), {
    name: 'MountError',
    option: 'mountpoint',
    path: '/nonexistent/x',
  })
  t.throws(() => mountDevice(-1, { ...request, subtype: 'b' }), { name: 'MountError' })
})

t.test('what is mounted', async t => {
  t.match(mountedDevice('/'), /^\d+:\d+$/)
  t.equal(mountedDevice('/nonexistent'), undefined)
  detach('/nonexistent', undefined)
  detach('/', '99999:99999')
  t.match(mountedDevice('/'), /^\d+:\d+$/, 'nothing but what is meant is taken away')
})

t.test('backing ids', async t => {
  const log = recordingLog()
  const ids = new DeviceFiles(1_000_000, log)
  t.equal(ids.openBacking(0, true), -9)
  t.equal(ids.openBacking(0, false), -9)
  t.equal(log.lines.length, 1, 'said once')
  ids.closeBacking(1)
  t.equal(log.lines.length, 2)
  t.equal(stackDepthOver(0x794c7630), 2)
  t.equal(stackDepthOver(0xef53), 1)
})

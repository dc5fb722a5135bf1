import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import {
  DeviceFiles,
  passthroughRefusal,
  prefersCache,
  stackDepthOver,
} from '../../../../src/fuse/device/backing.js'
import {
  FUSE_SUPER_MAGIC,
  OVERLAYFS_SUPER_MAGIC,
  TMPFS_MAGIC,
} from '../../../../src/sys/constants.js'
import { E } from '../../../../src/sys/errno.js'
import { scratch } from '../../../helpers/layers.js'
import { openFds } from '../../../helpers/union.js'
import { recordingLog } from '../support.js'

/** A device without support for backing files, and a file. */
const rig = (t: Test) => {
  const path = `${scratch(t)}/file`
  fs.writeFileSync(path, 'x')
  const device = fs.openSync('/dev/null', 'r+')
  const file = fs.openSync(path, 'r+')
  t.teardown(() => [device, file].forEach(fd => fs.closeSync(fd)))
  const log = recordingLog()
  return { path, device, file, log, files: new DeviceFiles(device, log), before: openFds() }
}

t.test('why there is no passthrough', async t => {
  const { device } = rig(t)
  t.match(passthroughRefusal(device), /^it needs CAP_SYS_ADMIN|^the kernel has no CONFIG_FUSE_PASS/)
})

t.test('over another FUSE filesystem', async t => {
  const { device, log } = rig(t)
  for (const [type, on] of [
    [FUSE_SUPER_MAGIC, true],
    [TMPFS_MAGIC, false],
  ] as const) {
    t.equal(prefersCache(type), on)
    t.equal(new DeviceFiles(device, log, type).opensUnnamed, !on)
  }
  t.equal(prefersCache(OVERLAYFS_SUPER_MAGIC), false)
})

t.test('only over overlayfs and FUSE the stack is one deeper', async t => {
  t.equal(stackDepthOver(FUSE_SUPER_MAGIC), 2)
  t.equal(stackDepthOver(OVERLAYFS_SUPER_MAGIC), 2)
  t.equal(stackDepthOver(TMPFS_MAGIC), 1)
  t.equal(stackDepthOver(0), 1)
})

t.test('a refusal is a result and logged once; no descriptor leaks', async t => {
  const { file, files, log, before } = rig(t)
  for (const writable of [true, false, true]) t.equal(files.openBacking(file, writable), -E.ENOTTY)
  t.strictSame(
    log.lines.map(([level, , fields]) => [level, fields]),
    [['warn', { errno: 'ENOTTY' }]],
  )
  files.closeBacking(0xffff_ffff)
  t.match(log.lines[1], ['error', /backing id/, { id: 0xffff_ffff, errno: 'ENOTTY' }])
  t.equal(files.openBacking(-1, true), -E.ENOTTY)
  t.strictSame(openFds(), before)
})

t.test('checks of a file keep no descriptor open', async t => {
  const { path, file, files, before } = rig(t)
  t.type(files.hasDirectIo(file), 'boolean')
  const pipe = fs.openSync('/proc/self/status', 'r')
  t.equal(files.hasDirectIo(pipe), false, 'EINVAL says that there is none')
  fs.closeSync(pipe)
  t.strictSame(openFds(), before)
  const again = files.reopen(file)
  t.equal(fs.readlinkSync(`/proc/self/fd/${again}`), path)
  t.equal(files.mayBeWritten(again), true, 'it is open for writing, here')
  t.strictSame(openFds(), before, 'the descriptor that was asked about is closed')
  t.equal(files.mayBeWritten(-1), true, 'where it cannot be told, it may')
})

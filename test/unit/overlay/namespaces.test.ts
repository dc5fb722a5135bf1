import t from 'tap'

import { readMountInfo } from '../../../src/overlay/mountinfo.js'
import { whereabouts } from '../../../src/overlay/namespaces.js'

t.test('a device number that another kind of file system has got since', async t => {
  // Device numbers of these live as long as the process namespace.
  const devices = readMountInfo()
    .filter(({ type }) => type === 'proc' || type === 'sysfs')
    .map(({ device }) => device)
  t.ok(devices.length > 0)
  t.strictSame(whereabouts(new Set(devices)), [])
})

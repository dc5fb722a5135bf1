import t from 'tap'

import { tuneBdi } from '../../../../src/fuse/device/bdi.js'
import { recordingLog } from '../support.js'

t.test('a missing mount, or one without permission, is ignored', async t => {
  const log = recordingLog(true)
  tuneBdi('0:1048575', log)
  t.match(log.lines, [
    ['debug', 'read_ahead_kb stays as it is', { error: /ENOENT|EACCES|EROFS/ }],
    ['debug', 'max_ratio stays as it is', { error: /ENOENT|EACCES|EROFS/ }],
  ])
})

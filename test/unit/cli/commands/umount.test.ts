import * as fs from 'node:fs'

import t from 'tap'

import { unmount } from '../../../../src/cli/commands/umount.js'

t.test('only what is a mount of FUSE is unmounted', async t => {
  const top = t.testdir({ directory: {} })
  fs.symlinkSync('/proc', `${top}/link`)
  for (const path of [top, `${top}/none`, `${top}/directory/..`, '/no/such/directory'])
    await t.rejects(
      unmount(path, false),
      { name: 'MountError', code: 'EINVAL', path, message: /nothing is mounted there/ },
      path,
    )
  for (const path of ['/proc', '/proc/', '/./proc', `${top}/link`])
    await t.rejects(
      unmount(path, true),
      { code: 'EINVAL', path, message: /holds a mount of type proc/ },
      path,
    )
})

import t from 'tap'

import { MountError } from '../../src/errors.js'

t.test('a mount that cannot be made says what is known of it', async t => {
  const cause = new Error('why')
  const about = { option: 'upperdir', path: '/u', code: 'ENOENT', cause }
  const error = new MountError('a line', about)
  t.ok(error instanceof Error)
  t.match(error, { name: 'MountError', message: 'a line', ...about })
  t.match(String(error), 'MountError: a line')
  const bare = new MountError('a line')
  t.match(bare, { option: undefined, path: undefined, code: undefined })
  t.notOk(Object.hasOwn(bare, 'cause'), 'no cause is not a cause that is undefined')
})

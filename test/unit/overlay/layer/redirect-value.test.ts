import * as fc from 'fast-check'
import t from 'tap'

import { checkRedirect } from '../../../../src/overlay/layer/redirect-value.js'
import { E } from '../../../../src/sys/errno.js'

const isRedirect = (value: string): boolean => checkRedirect(value) === 0

const isName = (text: string): boolean => !['', '.', '..'].includes(text)

t.test('a redirect is one name, or an absolute path of names', async t => {
  const part = fc.oneof(
    fc.constantFrom('', '.', '..', '...', 'a', '\xff', '.wh.a', ' '),
    fc.string({ minLength: 1, maxLength: 3 }).filter(text => !text.includes('/')),
  )
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), parts => {
      const names = parts.every(isName)
      const path = `/${parts.join('/')}`
      if (isRedirect(path) !== names) return false
      const relative = path.slice(1)
      if (relative === '' || relative.startsWith('/')) return true
      return isRedirect(relative) === (names && parts.length === 1)
    }),
  )
  for (const wrong of ['/', '//', '/a//b', '/a/', 'a/b', '..', '.', '/../a', '/a/..', 'a/'])
    t.notOk(isRedirect(wrong), wrong)
  for (const good of ['a', '/a', '/a/b', '...', '/.a/..b']) t.ok(isRedirect(good), good)
  for (const wrong of ['', '\0', 'a\0', '..\0', '/a\0/b', 'a\0b', '/..\0'])
    t.equal(checkRedirect(wrong), -E.EINVAL, JSON.stringify(wrong))
  for (const wrong of ['.', '..', '/..', '/a/../b', '/.'])
    t.equal(checkRedirect(wrong), -E.EACCES, wrong)
})

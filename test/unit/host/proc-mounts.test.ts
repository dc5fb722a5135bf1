import t from 'tap'

import { parseMountInfo, readMountInfo, unescapeOctal } from '../../../src/host/proc-mounts.js'

t.test('octal escapes', async t => {
  t.equal(unescapeOctal('/plain'), '/plain')
  t.equal(unescapeOctal('a\\040b\\011c\\012d\\134e'), 'a b\tc\nd\\e')
  t.equal(unescapeOctal('\\303\\244'), 'ä', 'bytes, not characters')
  t.equal(unescapeOctal('ä\\040'), 'ä ')
  t.equal(unescapeOctal('\\9'), '\\9')
})

t.test('lines', async t => {
  const text = `36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
37 35 0:40 / /a rw shared:3 master:4 - fuse.tsoverlay a\\040name rw,user_id=0
38 35 0:41 / /b rw - tmpfs none rw
not a line
`
  t.same(parseMountInfo(text), [
    {
      id: 36,
      device: '98:0',
      root: '/mnt1',
      mountpoint: '/mnt 2',
      options: 'rw,noatime',
      type: 'ext3',
      source: '/dev/root',
      superOptions: 'rw,errors=continue',
    },
    {
      id: 37,
      device: '0:40',
      root: '/',
      mountpoint: '/a',
      options: 'rw',
      type: 'fuse.tsoverlay',
      source: 'a name',
      superOptions: 'rw,user_id=0',
    },
    {
      id: 38,
      device: '0:41',
      root: '/',
      mountpoint: '/b',
      options: 'rw',
      type: 'tmpfs',
      source: 'none',
      superOptions: 'rw',
    },
  ])
  t.same(parseMountInfo(''), [])
})

t.test('of a process', async t => {
  t.ok(readMountInfo().some(({ mountpoint }) => mountpoint === '/'))
  t.same(readMountInfo(process.pid), readMountInfo('self'))
  t.same(readMountInfo(2 ** 30), [], 'that is not there')
})

t.test('only the lines with a text', async t => {
  const all = readMountInfo()
  const root = all.find(({ mountpoint }) => mountpoint === '/')
  t.match(
    readMountInfo('self', ` ${root?.device} `).map(({ id }) => id),
    [root?.id],
  )
  t.same(readMountInfo('self', 'no line has this'), [])
})

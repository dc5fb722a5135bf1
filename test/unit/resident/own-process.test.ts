import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import type { MountInfo } from '../../../src/host/proc-mounts.js'
import { whyOwn, whyOwnBelow, type Machine } from '../../../src/resident/own-process.js'

let id = 1
const mount = (mountpoint: string, type: string, device = '8:1', source = 'x'): MountInfo => ({
  id: id++,
  device,
  root: '/',
  mountpoint,
  options: 'rw',
  type,
  source,
  superOptions: 'rw',
})

/** A machine whose root directory lies on a disk, with other mounts. */
const machine = (t: Test, ...mounts: MountInfo[]): Machine & { top: string } => {
  const top = fs.realpathSync(
    t.testdir({
      a: { b: {} },
      sys: {
        dev: { block: {} },
        class: { block: {} },
        devices: {
          sda: { sda1: { partition: '1' } },
          nbd0: {},
          loop0: { loop: { backing_file: '' } },
          loop1: {},
          'dm-0': { slaves: {} },
        },
        fs: { btrfs: { id: { devices: {} } } },
      },
    }),
  )
  const sys = `${top}/sys`
  const devices = {
    '8:1': 'sda/sda1',
    '8:0': 'sda',
    '43:0': 'nbd0',
    '7:0': 'loop0',
    '7:1': 'loop1',
  }
  for (const [number, path] of Object.entries({ ...devices, '253:0': 'dm-0' }))
    fs.symlinkSync(`../../devices/${path}`, `${sys}/dev/block/${number}`)
  for (const [name, number] of Object.entries({ sda1: '8:1', nbd0: '43:0', loop0: '7:0' })) {
    fs.mkdirSync(`${sys}/class/block/${name}`)
    fs.writeFileSync(`${sys}/class/block/${name}/dev`, `${number}\n`)
  }
  return { mounts: [mount('/', 'ext4'), ...mounts], sys, rootMount: -1, top }
}

t.test('local file systems depend on nothing', async t => {
  const m = machine(t, mount('/mem', 'tmpfs'), mount('/disk', 'xfs', '8:0'))
  t.equal(whyOwn(['/mem/a/b', '/disk/x', '/', `${m.top}/a/b`, `${m.top}/none/x`], m), undefined)
})

t.test('those that may not answer, and those that nobody knows', async t => {
  for (const type of [
    'fuse.tsoverlay',
    'fuse',
    'fuseblk',
    'nfs4',
    'cifs',
    '9p',
    'autofs',
    'zfs',
    'new',
  ]) {
    const m = machine(t, mount('/x', type))
    for (const path of ['/x', '/x/a', '/y/../x/a', '//x', '/x/..'])
      t.match(whyOwn([path], m), `lies on /x, of type ${type}`, `${type} ${path}`)
    t.equal(whyOwn(['/y', '/xx', '/a/x'], m), undefined)
  }
  t.match(whyOwn(['/a'], { ...machine(t), mounts: [] }), 'does not show')
})

t.test('a symlink leads there', async t => {
  const m = machine(t, mount('/x', 'nfs4'))
  fs.symlinkSync('/x/y', `${m.top}/absolute`)
  fs.symlinkSync(`${'../'.repeat(30)}x`, `${m.top}/a/relative`)
  fs.symlinkSync('loop', `${m.top}/loop`)
  fs.symlinkSync('a/b', `${m.top}/fine`)
  t.match(whyOwn([`${m.top}/absolute`], m), 'nfs4')
  t.match(whyOwn([`${m.top}/a/relative/z`], m), 'nfs4')
  t.equal(
    whyOwn([`${m.top}/loop`, `${m.top}/fine/x`], m),
    undefined,
    'ELOOP is told by who opens it',
  )
  t.match(whyOwn(['/proc/self/root/a'], m), 'a link of /proc')
})

t.test('a mount that hides another counts, and one that is hidden', async t => {
  const m = machine(t, mount('/x', 'nfs4'), mount('/x', 'tmpfs'))
  t.match(whyOwn(['/x/a'], m), 'nfs4')
})

t.test('an overlay: that of the root directory is older than the process', async t => {
  const over = mount('/over', 'overlay')
  const m = machine(t, over)
  t.match(whyOwn(['/over/a'], m), 'layers may lie anywhere')
  t.equal(whyOwn(['/over/a'], { ...m, rootMount: over.id }), undefined)
})

t.test('devices', async t => {
  const m = machine(
    t,
    mount('/net', 'ext4', '43:0'),
    mount('/loop', 'ext4', '7:0'),
    mount('/gone', 'ext4', '7:1'),
    mount('/none', 'ext4', '9:9'),
    mount('/map', 'ext4', '253:0'),
    mount('/pool', 'btrfs', '0:50', '/dev/sda1'),
    mount('/far', 'nfs4'),
  )
  const file = `${m.sys}/devices/loop0/loop/backing_file`
  fs.writeFileSync(`${m.top}/image`, '')
  t.match(whyOwn(['/net'], m), 'on nbd0')
  t.match(whyOwn(['/gone'], m), 'in an unknown file')
  t.match(whyOwn(['/none'], m), 'that /sys does not show')
  for (const [path, expected] of [
    [`${m.top}/image`, undefined],
    ['/no/such/image', /in an unknown file/],
    ['/far/image', /in \/far\/image, which lies on \/far/],
    ['/loop/image', /./],
    ['/x (deleted)', /in an unknown file/],
    ['', /in an unknown file/],
  ] as const) {
    fs.writeFileSync(file, `${path}\n`)
    const why = whyOwn(['/loop/a'], m)
    if (expected === undefined) t.equal(why, undefined)
    else t.match(why, expected, path)
  }
  t.match(whyOwn(['/map'], m), 'on dm-0', 'on nothing that is told')
  fs.mkdirSync(`${m.sys}/devices/dm-0/slaves/sda1`)
  t.equal(whyOwn(['/map'], m), undefined)
  fs.mkdirSync(`${m.sys}/devices/dm-0/slaves/nbd0`)
  t.match(whyOwn(['/map'], m), 'nbd0')
  t.match(whyOwn(['/pool'], m), 'btrfs')
})

t.test('below a layer, where a union sees that', async t => {
  const m = machine(t, mount('/data/m', 'fuse.x'), mount('/data/t', 'tmpfs'))
  t.match(whyOwnBelow(['/data'], '/m', [], m), '/data/m, below a layer')
  t.equal(whyOwnBelow(['/data/t', '/dat'], '/m', [], m), undefined)
  t.match(whyOwnBelow(['/x'], '/layer/m', ['/y', '/layer'], m), 'a layer of another')
  t.match(whyOwnBelow(['/x'], '/m', ['/'], m), 'a layer of another')
  t.equal(whyOwnBelow(['/x'], '/layer', ['/layer'], m), undefined)
})

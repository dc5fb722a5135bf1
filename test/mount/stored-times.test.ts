/** The union shows a time as the upper layer stores it, at once. */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import t, { type Test } from 'tap'
import { directories, scratch, serve, skipMounts, test } from '../helpers/mount.js'
import * as sys from '../helpers/syscalls.js'
import { isNative } from '../helpers/transport.js'

const { O } = sys

const has = (program: string): boolean =>
  spawnSync('sh', ['-c', `command -v ${program} && test -e /dev/loop-control`]).status === 0

const FILE_SYSTEMS: Record<string, readonly string[]> = {
  'ext4 with whole seconds': ['mkfs.ext4', '-q', '-I', '128'],
  ext2: ['mkfs.ext2', '-q', '-I', '128'],
  'xfs up to 2038': ['mkfs.xfs', '-q', '-m', 'bigtime=0'],
}

/** Mounts a new file system and returns its directory. */
const make = (t: Test, [program = '', ...args]: readonly string[]): string => {
  const own = scratch(t, 'times')
  const image = `${own.top}/image`
  fs.writeFileSync(image, '')
  fs.truncateSync(image, 320 << 20)
  const made = spawnSync(program, [...args, image], { encoding: 'utf8' })
  t.equal(made.status, 0, made.stderr)
  fs.mkdirSync(`${own.top}/disk`)
  const mounted = spawnSync('mount', ['-o', 'loop', image, `${own.top}/disk`], { encoding: 'utf8' })
  t.equal(mounted.status, 0, mounted.stderr)
  own.before(() => void spawnSync('umount', [`${own.top}/disk`]))
  return `${own.top}/disk`
}

const YEARS = [-(2 ** 33), -(2 ** 31) - 5, -7, 1, 2 ** 31 - 1, 2 ** 31 + 9, 2 ** 32 + 3, 2 ** 35]

for (const [name, command] of Object.entries(FILE_SYSTEMS)) {
  for (const mode of ['io=cached', 'io=passthrough']) {
    const skip =
      skipMounts ||
      (isNative() && 'not with fuse-native') ||
      (!has(command[0] ?? '') && `needs ${command[0]} and loop devices`)
    test(t, `${name}, ${mode}`, { skip }, async t => {
      const disk = make(t, command)
      const f = directories(t, 'times')
      for (const part of ['upper', 'work']) fs.mkdirSync(`${disk}/${part}`)
      const options = `lowerdir=${f.lower},upperdir=${disk}/upper,workdir=${disk}/work`
      for (const at of ['touched', 'cut']) fs.writeFileSync(`${f.lower}/${at}`, 'content')
      await serve(t, { ...f, options }, '-o', mode)
      const same = (path: string, what: string): void => {
        const shown = sys.lstat(sys.AT_FDCWD, `${f.merged}/${path}`)
        const stored = sys.lstat(sys.AT_FDCWD, `${disk}/upper/${path}`)
        if (typeof shown === 'number' || typeof stored === 'number') return void t.fail(what)
        for (const time of ['atime', 'mtime', 'ctime'] as const)
          t.equal(shown[time], stored[time], `${what}: ${time}`)
      }
      fs.writeFileSync(`${f.merged}/new`, 'written')
      same('new', 'a new file')
      fs.mkdirSync(`${f.merged}/directory`)
      same('directory', 'a directory')
      fs.symlinkSync('target', `${f.merged}/link`)
      same('link', 'a symlink')
      fs.appendFileSync(`${f.merged}/new`, 'more')
      same('new', 'appended to')
      fs.truncateSync(`${f.merged}/cut`, 3)
      same('cut', 'cut')
      fs.chmodSync(`${f.merged}/touched`, 0o600)
      same('touched', 'copied up')
      for (const sec of YEARS) {
        const time = { sec, nsec: 123_456_789 }
        for (const path of ['new', 'touched', 'directory', 'link']) {
          sys.utimensat(sys.AT_FDCWD, `${f.merged}/${path}`, time, time, sys.AT_SYMLINK_NOFOLLOW)
          same(path, `${path} in ${sec}`)
        }
        const fd = sys.open(`${f.merged}/new`, O.RDWR)
        sys.futimens(fd, time, time)
        same('new', `by a descriptor, ${sec}`)
        sys.close(fd)
        same('new', `closed, ${sec}`)
      }
    })
  }
}

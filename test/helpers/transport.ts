/**
 * The transport that the tests of this process use. A test does not check it: the helpers pass it
 * on, and skip tests that the transport can't pass, with the reason.
 */

import { spawnSync } from 'node:child_process'

import type { Test } from 'tap'

import { bundle } from './bundle.js'

const VARIABLE = 'TSOVERLAY_TEST_TRANSPORT'

export const isNative = (): boolean => process.env[VARIABLE] === 'fuse-native'

/** Selects the package fuse-native for this process and the processes that it starts. */
export const useNative = (): void => void (process.env[VARIABLE] = 'fuse-native')

/** Why the package can't be used here, or false. */
export const skipNative = (t: Test): string | false => {
  const probe = `
    import { loadPackage } from '${bundle(t, 'fuse-native/package')}'
    try { loadPackage() } catch (error) { console.log(error.message) }
  `
  const args = ['-u', 'NODE_OPTIONS', process.execPath, '--input-type=module', '-e', probe]
  const { stdout, stderr } = spawnSync('/usr/bin/env', args, { encoding: 'utf8' })
  const [reason = ''] = (stdout + stderr).split('\n')
  return reason === '' ? false : reason
}

/** Tests that fuse-native can't pass, and the reasons. The keys are the titles of tests. */
const TIMES = 'times are passed as unsigned milliseconds'
const PASSTHROUGH = 'libfuse 2 has no passthrough'
const FLAGS = 'there is no handler for ioctl()'
const EXCHANGE = 'libfuse 2 has no RENAME2'
const LOOP = 'libfuse reads /dev/fuse itself'
const NOT_NATIVE = new Map([
  ['asleep in a read', LOOP],
  ['while its union sleeps', LOOP],
  ['data modes', PASSTHROUGH],
  ['a full disk', PASSTHROUGH],
  ['the kernel reads lower files directly if nothing can be copied up', PASSTHROUGH],
  ['a directory keeps its mode, owner and times over copy-up', TIMES],
  ['times before 1970', TIMES],
  ['atime and mtime are independent', TIMES],
  ['chown -R changes no time of a directory', TIMES],
  ['holes stay holes over copy-up', 'there is no handler for lseek()'],
  ['RENAME_EXCHANGE exchanges names across layers', EXCHANGE],
  ['a name that was exchanged over a lower name and then moved uncovers nothing', EXCHANGE],
  [
    'link counts of directories that were removed or replaced while open',
    'an open directory is requested by its path, which does not exist any more',
  ],
  [
    'names of 255 bytes, of 256 bytes, and with invalid UTF-8',
    'names are passed as JavaScript strings',
  ],
  ['a default ACL applies to new files in the directory', 'libfuse 2 does not negotiate ACLs'],
  ['an empty capability is not removed by a change of data', 'there is no handler for fallocate()'],
  [
    'a write through a mapping does not remove a capability',
    'a handler does not know that the data is a page of a mapping',
  ],
  ['inode flags of files can be read', FLAGS],
  ['an immutable file with a capability can be written through a descriptor opened before', FLAGS],
  ['an append-only file can be touched, and gets no other time', FLAGS],
])

export const notNative = (name: string): string | false =>
  (isNative() ? NOT_NATIVE.get(name) : undefined) ?? false

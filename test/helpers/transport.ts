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
export const goNative = (): void => void (process.env[VARIABLE] = 'fuse-native')

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
const TIMES = 'times travel as milliseconds without a sign'
const PASSTHROUGH = 'libfuse 2 has no passthrough'
const FLAGS = 'there is no handler for ioctl()'
const EXCHANGE = 'libfuse 2 has no RENAME2'
const LOOP = 'the loop on /dev/fuse is that of libfuse'
const NOT_NATIVE = new Map([
  ['asleep in a read', LOOP],
  ['while its union sleeps', LOOP],
  ['data modes', PASSTHROUGH],
  ['a full disk', PASSTHROUGH],
  ['the kernel reads lower files itself where nothing is ever copied up', PASSTHROUGH],
  ['a directory keeps its mode, owner and times over copy-up', TIMES],
  ['times before 1970', TIMES],
  ['atime and mtime are two times', TIMES],
  ['chown -R moves no time of a directory', TIMES],
  ['holes stay holes over copy-up', 'there is no handler for lseek()'],
  ['RENAME_EXCHANGE exchanges, across layers', EXCHANGE],
  ['what was exchanged over a lower name and moved on uncovers nothing', EXCHANGE],
  [
    'link counts of directories that were removed or replaced while open',
    'an open directory is asked for by its path, and there is none any more',
  ],
  ['names of 255 bytes, of 256, and that are no text', 'names travel as JavaScript strings'],
  ['a default ACL reaches what is made in the directory', 'libfuse 2 does not negotiate ACLs'],
  [
    'a capability of no bytes is not taken away by those who change the data',
    'there is no handler for fallocate()',
  ],
  [
    'what is written through a mapping takes no capability away',
    'no handler is told that it is a page of a mapping',
  ],
  ['flags of files can be asked for', FLAGS],
  ['an immutable file with a capability is written by who had it open before', FLAGS],
  ['an append-only file can be touched, and gets no other time', FLAGS],
])

export const notNative = (name: string): string | false =>
  (isNative() ? NOT_NATIVE.get(name) : undefined) ?? false

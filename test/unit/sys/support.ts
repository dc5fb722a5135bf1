/**
 * A directory for each test, on the real filesystem. Its files are removed and descriptors closed
 * afterwards.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { openPath } from '../../../src/sys/at.js'
import { O_DIRECTORY, O_RDONLY } from '../../../src/sys/constants.js'
import { errnoName } from '../../../src/sys/errno.js'
import { close } from '../../../src/sys/io.js'

export interface Directory {
  path: string
  /** The directory, opened for reading. */
  fd: number
  /** The path of a name in it. */
  at(name: string): string
  /** Registers a descriptor for closing; throws if it is an error. */
  keep(fd: number): number
}

export const directory = (t: Test): Directory => {
  const path = mkdtempSync(join(tmpdir(), 'tsoverlay-sys-'))
  const open: number[] = []
  const keep = (fd: number): number => {
    if (fd < 0) throw new Error(errnoName(fd))
    open.push(fd)
    return fd
  }
  t.teardown(() => {
    for (const fd of open) close(fd)
    rmSync(path, { recursive: true, force: true })
  })
  return {
    path,
    fd: keep(openPath(path, O_RDONLY | O_DIRECTORY)),
    at: name => join(path, name),
    keep,
  }
}

/** A result as text: '0', '5', '-ENOENT'. */
export const show = (r: number): string => (r < 0 ? `-${errnoName(r)}` : String(r))

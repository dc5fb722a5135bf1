/**
 * The unions that the same test runs on. The kernel's comes first, which shows that the test is
 * right.
 */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import {
  commandMounter,
  kernelMounter,
  mounterFor,
  type Mounter,
} from '../differential/mounters.js'
import type { LayerPaths } from '../differential/stack.js'
import { mountedOn, skipMounts } from './mount.js'
import { isNative } from './transport.js'
import * as sys from './syscalls.js'

export interface Kind {
  name: string
  kernel: boolean
  /** The kernel sends no OPEN request, so errors of an open are reported later. */
  noOpen?: boolean
  mounter: Mounter
}

const hasOverlay = fs.readFileSync('/proc/filesystems', 'utf8').includes('\toverlay\n')

/** TSOVERLAY_TEST_COMMAND adds one more, as `npm run differential -- --candidate` does. */
const command = process.env['TSOVERLAY_TEST_COMMAND']

const native: Kind = {
  name: 'tsoverlay transport=fuse-native',
  kernel: false,
  mounter: mounterFor('tsoverlay', 'cached', 'fuse-native'),
}

/** Tests of this transport leave the kernel's overlayfs out, because other runs cover it. */
export const KINDS: Kind[] = isNative()
  ? [native]
  : [
      { name: 'kernel overlayfs', kernel: true, mounter: kernelMounter },
      { name: 'tsoverlay io=cached', kernel: false, mounter: mounterFor('tsoverlay', 'cached') },
      {
        name: 'tsoverlay io=passthrough',
        kernel: false,
        mounter: mounterFor('tsoverlay', 'passthrough'),
      },
      {
        name: 'tsoverlay io=cached,noopen',
        kernel: false,
        noOpen: true,
        mounter: mounterFor('tsoverlay', 'cached,noopen'),
      },
      ...(command === undefined
        ? []
        : [{ name: command, kernel: false, mounter: commandMounter(command) }]),
    ]

/**
 * Tests of errors or effects of an open, which `noopen` does not have: noopen.test.ts covers these
 * cases. The keys are the titles of tests.
 */
const NOT_NOOPEN = new Map([
  ['copy-up at open, chmod, link, rename and truncate', 'an open copies nothing up'],
  [
    'no inode left: create, mkdir, symlink, mknod, copy-up, unlink, rename',
    'an open copies nothing up',
  ],
  [
    'a metacopy file keeps capability, set-id bits and times when its data is copied up',
    'an open copies nothing up',
  ],
  [
    'an immutable file with a capability can be written through a descriptor opened before',
    'without OPEN requests the opener is unknown',
  ],
])

export const notNoOpen = (kind: Kind, name: string): string | false =>
  (kind.noOpen === true ? NOT_NOOPEN.get(name) : undefined) ?? false

export const skipKind = (kind: Kind): string | false =>
  skipMounts !== false ? skipMounts : kind.kernel && !hasOverlay ? 'needs kernel overlayfs' : false

/** The directories of a union of one kind, and its mount. */
export class Bench {
  constructor(kind: Kind, lowers = 1) {
    const own = { top: fs.realpathSync(fs.mkdtempSync(`${tmpdir()}/tsoverlay-kind-`)) }
    fs.chmodSync(own.top, 0o755)
    this.kind = kind
    this.top = own.top
    const directory = (name: string): string => {
      fs.mkdirSync(`${own.top}/${name}`)
      return `${own.top}/${name}`
    }
    this.lowers = Array.from({ length: lowers }, (_, i) => directory(`lower${i}`))
    this.lower = this.lowers[0] ?? ''
    this.upper = directory('upper')
    this.work = directory('work')
    this.m = directory('m')
  }
  readonly kind: Kind
  readonly top: string
  /** The topmost layer comes first. */
  readonly lowers: string[]
  readonly lower: string
  readonly upper: string
  readonly work: string
  /** The mountpoint. */
  readonly m: string

  layers(): LayerPaths {
    return { lowers: this.lowers, upper: this.upper, work: this.work }
  }

  /**
   * `metacopy` affects only the kernel, which then needs redirects; tsoverlay always reads such
   * files.
   */
  mount({ metacopy = false } = {}): void {
    const redirectDir = metacopy ? 'on' : 'off'
    this.kind.mounter.mount(this.layers(), this.m, { redirectDir, metacopy })
  }

  umount(): void {
    this.kind.mounter.umount(this.layers(), this.m)
  }

  remount(): void {
    this.umount()
    this.mount()
  }

  /**
   * Unmounts and removes everything. It is called at the end of its test, before tap's teardown.
   */
  end(): void {
    try {
      if (mountedOn(this.m).length > 0) this.umount()
    } finally {
      sys.umount(this.m, sys.MNT.DETACH)
      spawnSync('rm', ['-rf', '--one-file-system', this.top])
    }
  }

  /** lstat of a file that must exist; an error fails the test. */
  stat(path: string): sys.Stat {
    const stat = sys.lstat(sys.AT_FDCWD, path)
    if (typeof stat === 'number') throw new Error(`lstat ${path}: errno ${-stat}`)
    return stat
  }

  fstat(fd: number): sys.Stat {
    const stat = sys.fstat(fd)
    if (typeof stat === 'number') throw new Error(`fstat: errno ${-stat}`)
    return stat
  }

  open(path: string, flags: number, mode = 0o644): number {
    const fd = sys.open(path, flags, mode)
    if (fd < 0) throw new Error(`open ${path}: errno ${-fd}`)
    return fd
  }

  /** The names in a directory, as the listing returns them. */
  list(path: string): string[] {
    const fd = this.open(path, sys.O.RDONLY | sys.O.DIRECTORY)
    const entries = sys.allDirents(fd)
    sys.close(fd)
    if (typeof entries === 'number') throw new Error(`list ${path}: errno ${-entries}`)
    return entries
      .map(entry => entry.name)
      .filter(name => name !== '.' && name !== '..')
      .toSorted()
  }
}

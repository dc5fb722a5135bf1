/**
 * The possible calls. An arbitrary generates a draft: a call whose paths and slots are still open
 * ("the third known directory"). When its turn comes, it is resolved with the objects that exist
 * then. The resolved call is run, reported and reduced.
 */

import * as fc from 'fast-check'
import { FALLOC, O, RENAME, S, SEEK, UTIME_NOW, UTIME_OMIT } from '../helpers/syscalls.js'
import type { Action, Call, Place } from './calls.js'
import { SLOTS } from './calls.js'
import type { Aim, Model, PlaceDraft } from './model.js'
import {
  alignment,
  anySlot,
  directory,
  regular,
  roundUp,
  resolve,
  slotOf,
  writable,
} from './model.js'
import {
  ACL_ACCESS,
  ACL_DEFAULT,
  CAPABILITY,
  LONG_NAME,
  aclArb,
  modeArb,
  nameArb,
  ownerArb,
  symlinkTargetArb,
  timeArb,
} from './stack.js'

export type Draft = (model: Model) => Call
type ActionDraft = (model: Model) => Action

const pick = <T>(...values: T[]): fc.Arbitrary<T> => fc.constantFrom(...values)
const weighted = <T>(...parts: [number, fc.Arbitrary<T>][]): fc.Arbitrary<T> =>
  fc.oneof(...parts.map(([weight, arbitrary]) => ({ weight, arbitrary })))
const big = fc.nat(0x3fffffff)
const seldom = weighted([9, fc.constant(false)], [1, fc.constant(true)])
const half = fc.boolean()

const callNameArb = weighted(
  [12, nameArb],
  [12, pick('u', 'v', 'w', 'x', 'y', 'z')],
  [1, pick('m'.repeat(256), LONG_NAME, '\xff', '.hidden', '..', '')],
)

const placeArb = (...aims: [number, Aim][]): fc.Arbitrary<PlaceDraft> =>
  fc.record({
    aim: weighted<Aim>(
      ...aims.map(([weight, aim]): [number, fc.Arbitrary<Aim>] => [weight, fc.constant(aim)]),
    ),
    number: big,
    names: fc.array(callNameArb, { minLength: 1, maxLength: 2 }),
    dress: weighted([40, fc.constant('')], [1, pick('/', '/.', '//', '/..')]),
  })

const draft = <T>(
  shape: { [K in keyof T]: fc.Arbitrary<T[K]> },
  make: (values: T, model: Model) => Action,
): fc.Arbitrary<ActionDraft> => fc.record<T>(shape).map(values => model => make(values, model))

const anything = placeArb([6, 'any'], [3, 'file'], [2, 'child'], [1, 'wild'], [1, 'slot'])
const fresh = placeArb([7, 'child'], [2, 'any'], [1, 'wild'], [1, 'slot'])
const files = placeArb([7, 'file'], [2, 'any'], [1, 'child'], [1, 'slot'])
const directories = placeArb([8, 'dir'], [1, 'any'], [1, 'wild'], [1, 'slot'])

const lengthArb = weighted(
  [5, fc.integer({ min: 1, max: 100 })],
  [4, fc.integer({ min: 1, max: 9000 })],
  [1, fc.integer({ min: 1, max: 140_000 })],
  [1, fc.constant(0)],
)
const offsetArb = weighted(
  [3, fc.constant(0)],
  [5, fc.nat(9000)],
  [2, fc.nat(30).map(n => n * 4096)],
  [1, fc.nat(400_000)],
)
const sizeArb = weighted(
  [3, fc.constant(0)],
  [5, fc.nat(9000)],
  [1, fc.nat(200_000)],
  [1, pick(-1, 1 << 22)],
)

const timesArb = weighted(
  [5, timeArb],
  [2, pick({ sec: 0, nsec: UTIME_NOW }, { sec: 0, nsec: UTIME_OMIT })],
  [1, pick({ sec: -1, nsec: -1 }, { sec: 5, nsec: 1_000_000_000 })],
)

const newOwnerArb = weighted([2, ownerArb], [2, fc.constant(-1)])
const newModeArb = weighted([12, modeArb], [1, pick(0o7777, 0o10644)])

const xattrNameArb = weighted(
  [8, pick('user.a', 'user.b', 'user.\xff', 'trusted.a')],
  [3, pick('trusted.overlay.opaque', 'trusted.overlay.x', 'trusted.overlay.origin')],
  [
    2,
    pick('user.overlay.opaque', 'user.overlay.x', 'trusted.overlay.overlay.x', 'trusted.overlayx'),
  ],
  [2, fc.constant('security.capability')],
  [2, pick(ACL_ACCESS, ACL_DEFAULT)],
  [
    1,
    pick(
      'bogus.x',
      'user.',
      'trusted.',
      'security.x',
      'system.x',
      'noprefix',
      `user.${'x'.repeat(300)}`,
    ),
  ],
)
const plainValueArb = weighted(
  [5, pick('', '61', '00ff', '79', Buffer.from('some longer value').toString('hex'))],
  [1, fc.constant('ab'.repeat(200))],
)
const xattrArb = xattrNameArb.chain(name =>
  fc.record({
    name: fc.constant(name),
    value: name.startsWith('system.')
      ? weighted([6, aclArb], [1, pick('', '02000000', '0200000001000700ffffffff', 'ff')])
      : name === 'security.capability'
        ? weighted([6, fc.constant(CAPABILITY)], [1, pick('', '00')])
        : name === 'user.overlay.opaque'
          ? pick('', '61')
          : plainValueArb,
  }),
)
const xattrFlagsArb = weighted([6, fc.constant(0)], [2, pick(1, 2)], [1, pick(3, 8)])
const roomArb = weighted([6, fc.constant(4096)], [1, pick(0, 1, 10)])

const openFlagsArb = fc
  .record({
    access: weighted(
      [4, fc.constant<number>(O.RDONLY)],
      [3, fc.constant(O.WRONLY)],
      [5, fc.constant(O.RDWR)],
    ),
    create: weighted([5, fc.constant(false)], [3, fc.constant(true)]),
    exclusive: seldom,
    truncate: weighted([5, fc.constant(false)], [1, fc.constant(true)]),
    append: weighted([5, fc.constant(false)], [1, fc.constant(true)]),
    rare: weighted(
      [12, fc.constant(0)],
      [1, pick(O.DIRECTORY, O.NOFOLLOW, O.PATH, O.DIRECT, O.DSYNC, O.NOATIME)],
      [1, pick(O.DIRECTORY | O.NOFOLLOW, O.PATH | O.NOFOLLOW, O.NOFOLLOW)],
    ),
  })
  .map(
    f =>
      f.access |
      (f.create ? O.CREAT : 0) |
      (f.exclusive ? O.EXCL : 0) |
      (f.truncate ? O.TRUNC : 0) |
      // With O_DIRECT the end of the file must be aligned to a block.
      (f.append && !(f.rare & O.DIRECT) ? O.APPEND : 0) |
      f.rare,
  )

const FALLOC_MODES = [
  0,
  FALLOC.KEEP_SIZE,
  FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE,
  FALLOC.ZERO_RANGE,
  FALLOC.ZERO_RANGE | FALLOC.KEEP_SIZE,
  FALLOC.PUNCH_HOLE,
]
/**
 * These run only if both sides support them: the kernel's FUSE client refuses them without a
 * request.
 */
const FALLOC_NATIVE = [FALLOC.COLLAPSE_RANGE, FALLOC.INSERT_RANGE, FALLOC.UNSHARE_RANGE]

export interface DraftOptions {
  /** The kernel's FUSE client is between the calls and the candidate. */
  fuse: boolean
  /** The candidate runs through the package fuse-native. */
  native: boolean
  /**
   * The upper layer becomes a lower layer. Not together with hard links in the layers: a FUSE
   * server does not know which of the names is copied up, and in a lower layer this makes a
   * difference.
   */
  pushes: boolean
  /** Files become immutable and append-only, which affects many other calls. */
  locks: boolean
}

const flagsArb = (
  options: DraftOptions,
  harmless: number[],
  locks: number[],
): fc.Arbitrary<number> => pick(...harmless, ...(options.locks ? locks : []))

const names = (): [number, fc.Arbitrary<ActionDraft>][] => [
  [
    8,
    draft({ place: fresh, flags: openFlagsArb, mode: newModeArb, into: big }, (v, m) => ({
      op: 'open',
      place: resolve(m, v.place),
      flags: v.flags | O.CREAT,
      mode: v.mode & 0o7777,
      into: v.into % SLOTS,
    })),
  ],
  [
    10,
    draft({ place: files, flags: openFlagsArb, mode: modeArb, into: big }, (v, m) => ({
      op: 'open',
      place: resolve(m, v.place),
      flags: v.flags,
      mode: v.mode,
      into: v.into % SLOTS,
    })),
  ],
  [
    4,
    draft({ place: directories, path: seldom, into: big }, (v, m) => ({
      op: 'open',
      place: resolve(m, v.place),
      flags: O.DIRECTORY | (v.path ? O.PATH : 0),
      mode: 0,
      into: v.into % SLOTS,
    })),
  ],
  [
    2,
    draft({ place: directories, read: seldom, excl: seldom, mode: modeArb, into: big }, (v, m) => ({
      op: 'open',
      place: resolve(m, v.place),
      flags: O.TMPFILE | (v.read ? O.RDONLY : O.RDWR) | (v.excl ? O.EXCL : 0),
      mode: v.mode,
      into: v.into % SLOTS,
    })),
  ],
  [
    6,
    draft({ place: fresh, mode: newModeArb }, (v, m) => ({
      op: 'mkdir',
      place: resolve(m, v.place),
      mode: v.mode & 0o7777,
    })),
  ],
  [
    3,
    draft(
      {
        place: fresh,
        type: pick(S.IFREG, S.IFIFO, S.IFSOCK, S.IFCHR, S.IFBLK, 0, S.IFDIR, S.IFLNK),
        mode: modeArb,
        device: pick<[number, number]>([0, 0], [1, 3], [1, 5], [250, 3], [250, 70_000]),
      },
      (v, m) => ({
        op: 'mknod',
        place: resolve(m, v.place),
        mode: v.type | v.mode,
        major: v.device[0],
        minor: v.device[1],
      }),
    ),
  ],
  [
    3,
    draft(
      { place: fresh, target: weighted([20, symlinkTargetArb], [1, pick('', 't'.repeat(5000))]) },
      (v, m) => ({
        op: 'symlink',
        place: resolve(m, v.place),
        target: v.target,
      }),
    ),
  ],
  [
    5,
    draft({ place: files, to: fresh, follow: seldom }, (v, m) => ({
      op: 'link',
      place: resolve(m, v.place),
      to: resolve(m, v.to),
      follow: v.follow,
    })),
  ],
  [
    2,
    draft({ slot: big, to: fresh, empty: half }, (v, m) => ({
      op: 'linkFd',
      slot: slotOf(m, v.slot, s => s.tmpfile),
      to: resolve(m, v.to),
      empty: v.empty,
    })),
  ],
  [7, draft({ place: anything }, (v, m) => ({ op: 'unlink', place: resolve(m, v.place) }))],
  [5, draft({ place: directories }, (v, m) => ({ op: 'rmdir', place: resolve(m, v.place) }))],
  [
    8,
    draft(
      {
        place: anything,
        to: fresh,
        flags: weighted(
          [4, fc.constant(0)],
          [1, fc.constant(RENAME.NOREPLACE)],
          [1, pick(RENAME.WHITEOUT, 3)],
        ),
      },
      (v, m) => ({
        op: 'rename',
        place: resolve(m, v.place),
        to: resolve(m, v.to),
        flags: v.flags,
      }),
    ),
  ],
  [
    4,
    draft(
      { place: directories, to: placeArb([3, 'child'], [3, 'dir']), exchange: seldom },
      (v, m) => ({
        op: 'rename',
        place: resolve(m, v.place),
        to: resolve(m, v.to),
        flags: v.exchange ? RENAME.EXCHANGE : 0,
      }),
    ),
  ],
  [
    3,
    draft({ place: anything, to: anything }, (v, m) => ({
      op: 'rename',
      place: resolve(m, v.place),
      to: resolve(m, v.to),
      flags: RENAME.EXCHANGE,
    })),
  ],
]

/**
 * The package does not pass on a chown without owner and group, which should still clear set-id
 * bits.
 */
const newOwner = (
  options: DraftOptions,
  v: { uid: number; gid: number },
): { uid: number; gid: number } => ({
  uid: options.native && v.uid === -1 && v.gid === -1 ? 0 : v.uid,
  gid: v.gid,
})

/** Usually an xattr that was set before. */
const xattrOf = (
  model: Model,
  v: { place: PlaceDraft; name: string; recent: number },
): { place: Place; name: string } => {
  const known = v.recent % 4 === 0 ? undefined : model.xattrs[(v.recent >> 2) % model.xattrs.length]
  return known === undefined
    ? { place: resolve(model, v.place), name: v.name }
    : { place: { slot: -1, path: known[0] }, name: known[1] }
}

const attributes = (options: DraftOptions): [number, fc.Arbitrary<ActionDraft>][] => [
  [
    4,
    draft({ place: anything, mode: newModeArb }, (v, m) => ({
      op: 'chmod',
      place: resolve(m, v.place),
      mode: v.mode,
    })),
  ],
  [
    4,
    draft({ place: anything, uid: newOwnerArb, gid: newOwnerArb, follow: half }, (v, m) => ({
      op: 'chown',
      place: resolve(m, v.place),
      ...newOwner(options, v),
      follow: v.follow,
    })),
  ],
  [
    5,
    draft({ place: anything, atime: timesArb, mtime: timesArb, follow: half }, (v, m) => ({
      op: 'utimens',
      place: resolve(m, v.place),
      atime: v.atime,
      mtime: v.mtime,
      follow: v.follow,
    })),
  ],
  [
    4,
    draft({ place: files, size: sizeArb }, (v, m) => ({
      op: 'truncate',
      place: resolve(m, v.place),
      size: v.size,
    })),
  ],
  [
    6,
    draft({ place: anything, xattr: xattrArb, flags: xattrFlagsArb, follow: half }, (v, m) => ({
      op: 'setxattr',
      place: resolve(m, v.place),
      ...v.xattr,
      flags: v.flags,
      follow: v.follow,
    })),
  ],
  [
    3,
    draft(
      { place: anything, name: xattrNameArb, recent: big, room: roomArb, follow: half },
      (v, m) => ({
        op: 'getxattr',
        ...xattrOf(m, v),
        room: v.room,
        follow: v.follow,
      }),
    ),
  ],
  [
    2,
    draft({ place: anything, room: roomArb, follow: half }, (v, m) => ({
      op: 'listxattr',
      place: resolve(m, v.place),
      room: v.room,
      follow: v.follow,
    })),
  ],
  [
    3,
    draft({ place: anything, name: xattrNameArb, recent: big, follow: half }, (v, m) => ({
      op: 'removexattr',
      ...xattrOf(m, v),
      follow: v.follow,
    })),
  ],
  [
    1,
    draft(
      { place: anything, flags: flagsArb(options, [0, 0, 0x40, 0x80], [0x10, 0x20, 0x30]) },
      (v, m) => ({
        op: 'setflags',
        place: resolve(m, v.place),
        flags: v.flags,
      }),
    ),
  ],
]

const questions = (): [number, fc.Arbitrary<ActionDraft>][] => [
  [
    5,
    draft({ place: anything, follow: half }, (v, m) => ({
      op: 'stat',
      place: resolve(m, v.place),
      follow: v.follow,
    })),
  ],
  [
    2,
    draft({ place: placeArb([6, 'symlink'], [1, 'any']), room: pick(4096, 3, 0) }, (v, m) => ({
      op: 'readlink',
      place: resolve(m, v.place),
      room: v.room,
    })),
  ],
  [
    5,
    draft({ place: directories, room: pick(32768, 600) }, (v, m) => ({
      op: 'list',
      place: resolve(m, v.place),
      room: v.room,
    })),
  ],
  [
    1,
    draft({ place: directories, index: big }, (v, m) => ({
      op: 'seekdir',
      place: resolve(m, v.place),
      index: v.index,
    })),
  ],
  [
    2,
    draft({ place: anything, mode: fc.nat(7), effective: half }, (v, m) => ({
      op: 'access',
      place: resolve(m, v.place),
      mode: v.mode,
      effective: v.effective,
    })),
  ],
  [1, draft({ place: anything }, (v, m) => ({ op: 'statfs', place: resolve(m, v.place) }))],
  [1, draft({ place: files }, (v, m) => ({ op: 'getflags', place: resolve(m, v.place) }))],
]

const data = (options: DraftOptions): [number, fc.Arbitrary<ActionDraft>][] => [
  [3, draft({ slot: big }, (v, m) => ({ op: 'close', slot: slotOf(m, v.slot, anySlot) }))],
  [
    5,
    draft({ slot: big, length: lengthArb, at: offsetArb }, (v, m) => {
      const slot = slotOf(m, v.slot, regular)
      const unit = alignment(m, slot)
      return unit === 1
        ? { op: 'read', slot, length: v.length }
        : { op: 'pread', slot, at: roundUp(v.at, unit), length: roundUp(v.length, unit) }
    }),
  ],
  [
    3,
    draft({ slot: big, length: lengthArb, at: offsetArb }, (v, m) => {
      const slot = slotOf(m, v.slot, regular)
      const unit = alignment(m, slot)
      return { op: 'pread', slot, at: roundUp(v.at, unit), length: roundUp(v.length, unit) }
    }),
  ],
  [
    6,
    draft({ slot: big, length: lengthArb, at: offsetArb, fill: fc.nat(255) }, (v, m) => {
      const slot = slotOf(m, v.slot, writable)
      const unit = alignment(m, slot)
      return unit === 1
        ? { op: 'write', slot, length: v.length, fill: v.fill }
        : {
            op: 'pwrite',
            slot,
            at: roundUp(v.at, unit),
            length: roundUp(v.length, unit),
            fill: v.fill,
          }
    }),
  ],
  [
    5,
    draft({ slot: big, length: lengthArb, at: offsetArb, fill: fc.nat(255) }, (v, m) => {
      const slot = slotOf(m, v.slot, writable)
      const unit = alignment(m, slot)
      return {
        op: 'pwrite',
        slot,
        at: roundUp(v.at, unit),
        length: roundUp(v.length, unit),
        fill: v.fill,
      }
    }),
  ],
  [
    4,
    draft(
      {
        slot: big,
        offset: weighted([6, offsetArb], [1, pick(-1, -100)]),
        whence: pick<number>(...Object.values(SEEK)),
      },
      (v, m) => {
        const slot = slotOf(m, v.slot, regular)
        if (m.slots[slot]?.dir) return { op: 'lseek', slot, offset: 0, whence: SEEK.SET }
        // With O_DIRECT an offset must be aligned to a block.
        return {
          op: 'lseek',
          slot,
          offset: roundUp(v.offset, alignment(m, slot)),
          whence: v.whence,
        }
      },
    ),
  ],
  [
    4,
    draft({ slot: big, size: sizeArb }, (v, m) => ({
      op: 'ftruncate',
      slot: slotOf(m, v.slot, writable),
      size: v.size,
    })),
  ],
  [
    4,
    draft(
      {
        slot: big,
        mode: options.fuse ? pick(...FALLOC_MODES) : pick(...FALLOC_MODES, ...FALLOC_NATIVE),
        at: offsetArb,
        length: weighted([6, lengthArb], [3, fc.integer({ min: 1, max: 8 }).map(n => n * 4096)]),
      },
      (v, m) => ({
        op: 'fallocate',
        slot: slotOf(m, v.slot, writable),
        mode: v.mode,
        at: v.at,
        length: v.length,
      }),
    ),
  ],
  [
    3,
    draft(
      {
        slot: big,
        toSlot: big,
        at: weighted([3, offsetArb], [1, fc.constant(-1)]),
        toAt: weighted([3, offsetArb], [1, fc.constant(-1)]),
        length: lengthArb,
      },
      (v, m) => {
        const slot = slotOf(m, v.slot, regular)
        const toSlot = slotOf(m, v.toSlot, writable)
        // The requirements of O_DIRECT for this call depend on the real file system.
        if (m.slots[slot]?.direct || m.slots[toSlot]?.direct) return { op: 'fstat', slot }
        return { op: 'copy', slot, toSlot, at: v.at, toAt: v.toAt, length: v.length }
      },
    ),
  ],
  [
    2,
    draft({ slot: big, data: half }, (v, m) => ({
      op: 'fsync',
      slot: slotOf(m, v.slot, anySlot),
      data: v.data,
    })),
  ],
  [
    2,
    draft(
      {
        slot: big,
        prot: pick(1, 2, 3),
        shared: half,
        at: fc.nat(4).map(n => n * 4096),
        length: fc.integer({ min: 1, max: 20_000 }),
        fill: fc.nat(255),
      },
      (v, m) => ({
        op: 'mmap',
        slot: slotOf(m, v.slot, regular),
        prot: v.prot,
        shared: v.shared,
        at: v.at,
        length: v.length,
        fill: v.fill,
      }),
    ),
  ],
  [
    1,
    draft({ slot: big, operation: pick(5, 6, 8) }, (v, m) => ({
      op: 'flock',
      slot: slotOf(m, v.slot, regular),
      operation: v.operation,
    })),
  ],
]

const descriptors = (options: DraftOptions): [number, fc.Arbitrary<ActionDraft>][] => [
  [4, draft({ slot: big }, (v, m) => ({ op: 'fstat', slot: slotOf(m, v.slot, anySlot) }))],
  [
    2,
    draft({ slot: big, mode: newModeArb }, (v, m) => ({
      op: 'fchmod',
      slot: slotOf(m, v.slot, anySlot),
      mode: v.mode,
    })),
  ],
  [
    2,
    draft({ slot: big, uid: newOwnerArb, gid: newOwnerArb }, (v, m) => ({
      op: 'fchown',
      slot: slotOf(m, v.slot, anySlot),
      ...newOwner(options, v),
    })),
  ],
  [
    2,
    draft({ slot: big, atime: timesArb, mtime: timesArb }, (v, m) => ({
      op: 'futimens',
      slot: slotOf(m, v.slot, anySlot),
      atime: v.atime,
      mtime: v.mtime,
    })),
  ],
  [
    3,
    draft({ slot: big, xattr: xattrArb, flags: xattrFlagsArb }, (v, m) => ({
      op: 'fsetxattr',
      slot: slotOf(m, v.slot, anySlot),
      ...v.xattr,
      flags: v.flags,
    })),
  ],
  [
    1,
    draft({ slot: big, name: xattrNameArb, room: roomArb }, (v, m) => ({
      op: 'fgetxattr',
      slot: slotOf(m, v.slot, anySlot),
      name: v.name,
      room: v.room,
    })),
  ],
  [
    1,
    draft({ slot: big, room: roomArb }, (v, m) => ({
      op: 'flistxattr',
      slot: slotOf(m, v.slot, anySlot),
      room: v.room,
    })),
  ],
  [
    1,
    draft({ slot: big, name: xattrNameArb }, (v, m) => ({
      op: 'fremovexattr',
      slot: slotOf(m, v.slot, anySlot),
      name: v.name,
    })),
  ],
  [
    3,
    draft({ slot: big, room: pick(32768, 600) }, (v, m) => ({
      op: 'flist',
      slot: slotOf(m, v.slot, directory),
      room: v.room,
    })),
  ],
  [1, draft({ slot: big }, (v, m) => ({ op: 'fgetflags', slot: slotOf(m, v.slot, anySlot) }))],
  [
    1,
    draft({ slot: big, flags: flagsArb(options, [0, 0, 0x40], [0x10, 0x20]) }, (v, m) => ({
      op: 'fsetflags',
      slot: slotOf(m, v.slot, anySlot),
      flags: v.flags,
    })),
  ],
]

const listDuringArb = draft(
  {
    place: placeArb([1, 'dir']),
    room: pick(280, 600),
    changes: fc.array(
      fc.record({ what: pick('create', 'mkdir', 'unlink', 'rename'), name: nameArb, to: nameArb }),
      { minLength: 1, maxLength: 4 },
    ),
  },
  (v, m) => {
    const place = resolve(m, v.place)
    const under = (name: string): Place => ({ slot: -1, path: `${place.path}/${name}` })
    const changes = v.changes.map(({ what, name, to }): Call => {
      const action: Action =
        what === 'create'
          ? { op: 'mknod', place: under(name), mode: S.IFREG | 0o644, major: 0, minor: 0 }
          : what === 'mkdir'
            ? { op: 'mkdir', place: under(name), mode: 0o755 }
            : what === 'unlink'
              ? { op: 'unlink', place: under(name) }
              : { op: 'rename', place: under(name), to: under(to), flags: 0 }
      return { action, as: 0, umask: 0o22, check: false }
    })
    return { op: 'listDuring', place, room: v.room, changes }
  },
)

const rareArb: fc.Arbitrary<ActionDraft> = weighted(
  [4, fc.constant<ActionDraft>(() => ({ op: 'forget' }))],
  [1, draft({ slot: big }, (v, m) => ({ op: 'syncfs', slot: slotOf(m, v.slot, anySlot) }))],
)

/** A step of the run itself. */
const ours =
  (action: Action): Draft =>
  () => ({ action, as: 0, umask: 0o22, check: false })

/**
 * `count` drafts, including a remount after every 400 calls and a comparison after `every` calls.
 */
export const draftsArb = (
  count: number,
  every: number,
  options: DraftOptions,
): fc.Arbitrary<Draft[]> => {
  const actionArb = weighted(
    ...names(),
    ...attributes(options),
    ...questions(),
    ...data(options),
    ...descriptors(options),
    [2, listDuringArb],
  )
  const callArb = fc
    .record({
      action: weighted([600, actionArb], [1, rareArb]),
      as: weighted([8, fc.constant(0)], [3, fc.constant(1)], [1, fc.constant(2)]),
      umask: weighted([8, fc.constant(0o22)], [1, pick(0, 0o77, 0o27)]),
      check: half,
    })
    .map((v): Draft => model => ({
      action: v.action(model),
      as: v.as,
      umask: v.umask,
      check: v.check,
    }))
  return fc.noBias(
    fc
      .record({
        calls: fc.array(callArb, { minLength: count, maxLength: count }),
        swaps: fc.infiniteStream(half),
      })
      .map(({ calls, swaps }) => {
        const out: Draft[] = []
        // A second push would turn links that the run has created into links in the layers.
        let pushes = options.pushes ? 1 : 0
        calls.forEach((call, i) => {
          out.push(call)
          if ((i + 1) % 400 === 0) {
            const swap = swaps.next().value
            out.push(ours(pushes > 0 ? { op: 'push' } : { op: 'remount', swap }))
            pushes = 0
          } else if ((i + 1) % every === 0) out.push(ours({ op: 'compare' }))
        })
        return out
      }),
  )
}

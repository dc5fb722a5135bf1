/**
 * Opens that could block are refused or parked. All tests run in the test's own thread, so a
 * blocking open would block the whole test.
 */

import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import {
  Attr,
  Entry,
  Opened,
  SetAttr,
  SetAttrValid,
  type Result,
} from '../../../../src/overlay/ops.js'
import { openRegular, reopenRegular } from '../../../../src/overlay/layer/open-regular.js'
import { E } from '../../../../src/sys/errno.js'
import * as c from '../../../../src/sys/libc.js'
import { scratch, unionDirectories } from '../../../helpers/layers.js'
import * as sys from '../../../helpers/syscalls.js'
import { optionsOf } from '../../../helpers/union.js'
import { pendingOf, resultOf, skipUnions, stateOf, type State } from '../support.js'

const { O, S } = sys

const kept = (t: Test, fd: number): number => {
  if (fd < 0) throw new Error(`errno ${-fd}`)
  t.teardown(() => sys.close(fd))
  return fd
}

t.test('an object is reopened by its descriptor after its name has changed', async t => {
  const top = scratch(t)
  fs.writeFileSync(`${top}/f`, 'text')
  const path = kept(t, sys.open(`${top}/f`, O.PATH))
  fs.rmSync(`${top}/f`)
  fs.writeFileSync(`${top}/f`, 'another')
  for (const flags of [O.RDONLY, O.RDWR, O.RDONLY | O.NOATIME, O.RDONLY | O.NOFOLLOW]) {
    const fd = kept(t, reopenRegular(path, flags, null))
    t.equal(fs.readFileSync(fd, 'latin1'), 'text')
  }
  const directory = kept(t, sys.open(top, O.PATH))
  for (const flags of [O.RDONLY, O.WRONLY, O.RDONLY | O.DIRECTORY])
    t.equal(reopenRegular(directory, flags, null), -E.ESTALE)
  t.equal(reopenRegular(1_000_000, O.RDONLY, null), -E.ENOENT)
})

t.test('O_NOATIME is left out for a file of another owner', async t => {
  if (process.geteuid?.() !== 0) return t.comment('needs root')
  const top = scratch(t)
  fs.chmodSync(top, 0o755)
  fs.writeFileSync(`${top}/f`, 'text')
  const path = kept(t, sys.open(`${top}/f`, O.PATH))
  const fd = sys.withCredentials({ uid: 1234, gid: 1234, groups: [] }, () => {
    t.equal(sys.open(`${top}/f`, O.RDONLY | O.NOATIME), -E.EPERM)
    return reopenRegular(path, O.RDONLY | O.NOATIME, null)
  })
  t.equal(fs.readFileSync(kept(t, fd), 'latin1'), 'text')
})

const F_SETSIG = 10
const F_SETLEASE = 1024
const F_WRLCK = 1
const F_UNLCK = 2
/** This signal is ignored by default. */
const SIGURG = 23

/** Takes a write lease on a file. Returns a function that releases it. */
const lease = (t: Test, path: string): (() => void) => {
  const fd = sys.open(path, O.RDWR)
  if (fd < 0 || c.fcntl(fd, F_SETSIG, SIGURG) < 0 || c.fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
    throw new Error(`${path}: no lease`)
  let held = true
  const releaseLease = (): void => {
    if (held) c.fcntl(fd, F_SETLEASE, F_UNLCK)
    if (held) sys.close(fd)
    held = false
  }
  t.teardown(releaseLease)
  return releaseLease
}

/** All types that may have replaced a regular file. */
const OTHERS: Record<string, (path: string) => void> = {
  'a FIFO': path => sys.mknodat(sys.AT_FDCWD, path, S.IFIFO | 0o666, 0, 0),
  'a socket': path => sys.mknodat(sys.AT_FDCWD, path, S.IFSOCK | 0o666, 0, 0),
  'a device': path => sys.mknodat(sys.AT_FDCWD, path, S.IFCHR | 0o666, 1, 3),
  'a whiteout': path => sys.mknodat(sys.AT_FDCWD, path, S.IFCHR, 0, 0),
  'a symlink': path => fs.symlinkSync('target', path),
  'a directory': path => fs.mkdirSync(path),
}

t.test('nothing but a regular file is opened', { skip: skipUnions }, async t => {
  const top = scratch(t)
  fs.writeFileSync(`${top}/target`, 'text')
  const directory = kept(t, sys.open(top, O.PATH))
  for (const [what, make] of Object.entries(OTHERS)) {
    make(`${top}/f`)
    for (const flags of [O.RDONLY, O.RDONLY | O.NOATIME, O.WRONLY, O.RDWR])
      t.equal(openRegular(directory, 'f', flags, null), -E.ESTALE, `${what}, ${flags}`)
    fs.rmSync(`${top}/f`, { recursive: true })
  }
  t.equal(
    fs.readFileSync(kept(t, openRegular(directory, 'target', O.RDONLY, null)), 'latin1'),
    'text',
  )
})

t.test('an open does not wait for a lease', async t => {
  const top = scratch(t)
  fs.writeFileSync(`${top}/f`, 'text')
  const directory = kept(t, sys.open(top, O.PATH))
  const path = kept(t, sys.open(`${top}/f`, O.PATH))
  const releaseLease = lease(t, `${top}/f`)
  t.equal(openRegular(directory, 'f', O.RDONLY, null), -E.EAGAIN)
  t.equal(reopenRegular(path, O.RDWR, null), -E.EAGAIN)
  releaseLease()
  kept(t, openRegular(directory, 'f', O.RDONLY, null))
  kept(t, reopenRegular(path, O.RDWR, null))
})

/**
 * The inode flags of a new file. If the flag for extents is missing, ext4 converts the file, which
 * sometimes fails with EOPNOTSUPP.
 */
const usualFlags = ((): number => {
  const path = `${scratch(t)}/f`
  fs.writeFileSync(path, 'text')
  const fd = sys.open(path, O.RDONLY)
  const flags = sys.getFlags(fd)
  sys.close(fd)
  return Math.max(flags, 0)
})()

/** All operations that open a file of a layer, as the node `id`. */
const OPENERS: Record<string, (ops: State['ops'], id: number) => Result> = {
  read: (ops, id) => {
    const opened = new Opened()
    const result = ops.open(id, O.RDONLY, false, opened)
    if (result < 0) return result
    try {
      return ops.read(opened.fh, Buffer.alloc(64), 0, 64, 0)
    } finally {
      ops.release(opened.fh)
    }
  },
  write: (ops, id) => {
    const opened = new Opened()
    const result = ops.open(id, O.WRONLY, false, opened)
    if (result >= 0) ops.release(opened.fh)
    return result
  },
  truncate: (ops, id) => {
    const opened = new Opened()
    const result = ops.open(id, O.WRONLY | O.TRUNC, false, opened)
    if (result >= 0) ops.release(opened.fh)
    return result
  },
  chmod: (ops, id) => {
    const set = new SetAttr()
    set.valid = SetAttrValid.MODE
    set.mode = 0o640
    return ops.setattr(id, set, new Attr())
  },
  chattr: (ops, id) => ops.setFlags(id, usualFlags),
  lsattr: (ops, id) => ops.getFlags(id),
}

const idOf = ({ ops }: State): number => {
  const out = new Entry()
  ops.lookup(1, 'f', out)
  return out.nodeId
}

t.test('a union does not block on a replacement of a file', { skip: skipUnions }, async t => {
  for (const where of ['lower', 'upper'] as const) {
    for (const [what, make] of Object.entries(OTHERS)) {
      for (const [how, open] of Object.entries(OPENERS)) {
        // The mode of the replacement is changed, too: that requires no open.
        if (how === 'chmod' && where === 'upper') continue
        await t.test(`${what} in ${where}: ${how}`, async t => {
          const directories = unionDirectories(t, { lower: [{}] })
          const path = `${where === 'upper' ? directories.upper : directories.lower[0]}/f`
          fs.writeFileSync(path, 'text')
          const state = stateOf(t, optionsOf(directories, { volatile: true }))
          const id = idOf(state)
          fs.rmSync(path)
          make(path)
          const result = open(state.ops, id)
          t.ok(result < 0, `refused: ${result}`)
          t.not(result, -E.EIO)
        })
      }
    }
  }
})

t.test('a lease parks only requests that open the file', { skip: skipUnions }, async t => {
  for (const where of ['lower', 'upper'] as const) {
    for (const [how, open] of Object.entries(OPENERS)) {
      if (how === 'chmod' && where === 'upper') continue
      await t.test(`${where}: ${how}`, async t => {
        const directories = unionDirectories(t, { lower: [{}] })
        const path = `${where === 'upper' ? directories.upper : directories.lower[0]}/f`
        fs.writeFileSync(path, 'text')
        const state = stateOf(t, optionsOf(directories, { volatile: true }))
        const { ops } = state
        const id = idOf(state)
        const releaseLease = lease(t, path)
        const first = pendingOf(() => open(ops, id))
        t.equal(first.answer, false)
        t.equal(await resultOf(first, () => ops.runCallbacks()), 0)
        const again = pendingOf(() => open(ops, id))
        releaseLease()
        t.equal(await resultOf(again, () => ops.runCallbacks()), 0)
        let result: Result
        for (;;) {
          try {
            result = open(ops, id)
            break
          } catch {
            // Syncing the data of a copy-up is a separate job.
            const next = pendingOf(() => open(ops, id))
            t.equal(await resultOf(next, () => ops.runCallbacks()), 0)
          }
        }
        t.ok(result >= 0, `in the end it is opened: ${result}`)
        t.strictSame(state.complaints, [])
      })
    }
  }
})

t.test('a caller with O_NONBLOCK gets EAGAIN', { skip: skipUnions }, async t => {
  const directories = unionDirectories(t, { lower: [{}] })
  fs.writeFileSync(`${directories.upper}/f`, 'text')
  const state = stateOf(t, optionsOf(directories, { volatile: true }))
  const id = idOf(state)
  lease(t, `${directories.upper}/f`)
  t.equal(state.ops.open(id, O.RDWR | O.NONBLOCK, false, new Opened()), -E.EAGAIN)
})

t.test('many leases take one thread', { skip: skipUnions }, async t => {
  const directories = unionDirectories(t, { lower: [{}] })
  fs.writeFileSync(`${directories.upper}/f`, 'text')
  const { u, ops, find } = stateOf(t, optionsOf(directories, { volatile: true }))
  const { id } = find('f')
  const releaseLease = lease(t, `${directories.upper}/f`)
  const waiting = Array.from({ length: 50 }, () =>
    pendingOf(() => ops.open(id, O.RDWR, false, new Opened())),
  )
  t.equal(new Set(waiting.map(({ job }) => job)).size, 1)
  t.equal(u.pool.pending, 1)
  releaseLease()
  for (const one of waiting) t.equal(await resultOf(one, () => ops.runCallbacks()), 0)
})

t.test('existing marker files are not opened', { skip: skipUnions }, async t => {
  const directories = unionDirectories(t, { lower: [{}] })
  fs.writeFileSync(`${directories.lower[0]}/f`, 'text')
  const { ops, find } = stateOf(t, optionsOf(directories, { whiteout: 'wh' }))
  find('f')
  OTHERS['a FIFO']?.(`${directories.upper}/.wh.f`)
  t.equal(ops.unlink(1, 'f'), 0)
  t.equal(ops.lookup(1, 'f', new Entry()), 0)
})

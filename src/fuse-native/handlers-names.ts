/** Handlers that create, remove and rename. Part of the table in handlers.ts. */

import { devMajor, devMinor } from '../fuse/protocol/decode.js'
import type { Result } from '../overlay/ops.js'
import { O_RDWR } from '../sys/constants.js'
import { E } from '../sys/errno.js'
import { isHiding } from './hidden.js'
import { toBytes } from './names.js'
import type { Operations } from './package.js'
import type { Dentry, Place } from './paths.js'
import type { Session } from './session.js'

type Names = Pick<
  Operations,
  'create' | 'mknod' | 'mkdir' | 'symlink' | 'link' | 'unlink' | 'rmdir' | 'rename'
>

const removed = (s: Session, place: Place, r: Result): Result => {
  const dentry = s.paths.known(place)
  if (r >= 0 && dentry !== undefined) s.paths.remove(dentry)
  return r
}

const unlink = (s: Session, path: string): Result => {
  const place = s.paths.place(path)
  if (typeof place === 'number') return place
  const dentry = s.paths.known(place)
  // libfuse has closed a file that the union has already removed.
  if (dentry?.hidden === true) s.paths.remove(dentry)
  else return removed(s, place, s.ops.unlink(place.directory.id, place.name))
  return 0
}

/** rename(2) does nothing if both names are links to the same file. */
const keepsName = (s: Session, { parent, name, id }: Dentry): boolean => {
  if (parent === null || s.ops.lookup(parent.id, name, s.entry) < 0) return false
  const { nodeId } = s.entry
  if (nodeId !== 0) s.ops.forget(nodeId, 1)
  return nodeId === id
}

const rename = (s: Session, from: string, to: string, thread: Buffer | undefined): Result => {
  const into = s.paths.place(to)
  if (typeof into === 'number') return into
  const claimed = s.hidden.claim(thread, into)
  if (!claimed) s.hidden.removePending()
  const dentry = s.find(from)
  if (typeof dentry === 'number') return dentry
  const { parent, name } = dentry
  if (parent === null) return -E.EBUSY
  if (isHiding(dentry, into) && s.isOpen(dentry.id)) {
    s.hidden.hide(dentry, into, thread)
    return 0
  }
  const r = s.ops.rename(parent.id, name, into.directory.id, into.name, 0)
  if (r >= 0 && !keepsName(s, dentry)) s.paths.move(dentry, into)
  if (claimed) s.hidden.renamed()
  return r
}

export const nameHandlers = (s: Session): Names => {
  /** Creates something in a directory. */
  const make = (path: string, call: (place: Place) => Result): Result => {
    const place = s.paths.place(path)
    return typeof place === 'number' ? place : s.created(place, call(place))
  }
  return {
    create(path, mode, done) {
      const call = (): Result => {
        // The open flags are unknown, so O_RDWR is used. The kernel enforces the flags of the
        // caller's descriptor.
        const r = make(path, ({ directory, name }) =>
          s.ops.create(s.caller, directory.id, name, mode & 0o7777, O_RDWR, s.entry, s.opened),
        )
        return r < 0 ? r : s.fileOpened(s.entry.nodeId)
      }
      s.run('create', call, r => (r < 0 ? done(r) : done(0, r)))
    },
    mknod(path, mode, dev, done) {
      const call = (): Result =>
        make(path, ({ directory, name }) =>
          s.ops.mknod(
            s.caller,
            directory.id,
            name,
            mode & 0xffff,
            devMajor(dev),
            devMinor(dev),
            s.entry,
          ),
        )
      s.run('mknod', call, done)
    },
    mkdir(path, mode, done) {
      const call = (): Result =>
        make(path, ({ directory, name }) =>
          s.ops.mkdir(s.caller, directory.id, name, mode & 0o7777, s.entry),
        )
      s.run('mkdir', call, done)
    },
    symlink(target, path, done) {
      const call = (): Result => {
        const bytes = toBytes(target)
        if (bytes === undefined) return -E.EILSEQ
        return make(path, ({ directory, name }) =>
          s.ops.symlink(s.caller, directory.id, name, bytes, s.entry),
        )
      }
      s.run('symlink', call, done)
    },
    link(from, to, done) {
      const call = (): Result => {
        const id = s.node(from)
        return id < 0
          ? id
          : make(to, ({ directory, name }) => s.ops.link(id, directory.id, name, s.entry))
      }
      s.run('link', call, done)
    },
    unlink(path, done) {
      s.run('unlink', () => unlink(s, path), done)
    },
    rmdir(path, done) {
      const call = (): Result => {
        const place = s.paths.place(path)
        if (typeof place === 'number') return place
        return removed(s, place, s.ops.rmdir(place.directory.id, place.name))
      }
      s.run('rmdir', call, done)
    },
    rename(from, to, done) {
      const { thread } = s
      s.run('rename', () => rename(s, from, to, thread), done)
    },
  }
}

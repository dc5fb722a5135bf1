/** Handlers for open files and directories. Part of the table in handlers.ts. */

import { FMODE_EXEC } from '../fuse/protocol/abi.js'
import type { ByteString, DirSink, Result } from '../overlay/ops.js'
import type { Ino } from '../sys/stat.js'
import { E } from '../sys/errno.js'
import { listedStat } from './attrs.js'
import { toText } from './names.js'
import type { Operations, PackageStat } from './package.js'
import type { Session } from './session.js'

type Data = Pick<
  Operations,
  'open' | 'release' | 'read' | 'write' | 'fsync' | 'readdir' | 'fsyncdir'
>

const MAX = Number.MAX_SAFE_INTEGER

/** A whole listing: libfuse always requests all of it and passes on parts itself. */
class Listing implements DirSink {
  readonly names: string[] = []
  readonly stats: PackageStat[] = []
  readonly #session: Session

  constructor(session: Session) {
    this.#session = session
  }

  add(name: ByteString, ino: Ino, type: number): boolean {
    const text = toText(name)
    if (text === undefined) {
      this.#leaveOut(name)
      return true
    }
    this.names.push(text)
    this.stats.push(listedStat(ino, type, this.#session.inos))
    return true
  }

  #leaveOut(name: ByteString): void {
    const s = this.#session
    if (s.unlisted++ === 0) {
      const hex = Buffer.from(name, 'latin1').toString('hex')
      s.log.warn({ hex }, 'a name that is not UTF-8 is left out of listings; so are others like it')
    }
  }
}

const list = (s: Session, path: string, listing: Listing): Result => {
  const id = s.node(path)
  if (id < 0) return id
  return s.ops.readdir(id, 0, listing)
}

export const dataHandlers = (s: Session): Data => ({
  open(path, flags, done) {
    const call = (): Result => {
      const id = s.node(path)
      if (id < 0) return id
      const r = s.ops.open(id, flags & ~FMODE_EXEC, false, s.opened)
      return r < 0 ? r : s.fileOpened(id)
    }
    s.run('open', call, r => (r < 0 ? done(r) : done(0, r)))
  },
  release(_path, fd, done) {
    const call = (): Result => {
      s.fileClosed(fd)
      return 0
    }
    s.run('release', call, done)
  },
  // The buffer is libfuse's own memory, so the data is not copied again.
  read(_path, fd, buf, length, position, done) {
    const call = (): Result =>
      position > MAX || length === 0 ? 0 : s.ops.read(fd, buf, 0, length, position)
    s.run('read', call, r => (r < 0 ? done(r) : done(r, r)))
  },
  write(_path, fd, buf, length, position, done) {
    const call = (): Result => {
      if (position + length > MAX) return -E.EFBIG
      return length === 0 ? 0 : s.ops.write(fd, buf, 0, length, position, false, false)
    }
    s.run('write', call, r => (r < 0 ? done(r) : done(r, r)))
  },
  fsync(_path, datasync, fd, done) {
    s.run('fsync', () => s.ops.fsync(fd, datasync !== 0), done)
  },
  readdir(path, done) {
    const listing = new Listing(s)
    s.run(
      'readdir',
      () => list(s, path, listing),
      r => (r < 0 ? done(r) : done(0, listing.names, listing.stats)),
    )
  },
  fsyncdir(path, datasync, _fd, done) {
    const call = (): Result => {
      const id = s.node(path)
      return id < 0 ? id : s.ops.fsyncdir(id, datasync !== 0)
    }
    s.run('fsyncdir', call, done)
  },
})

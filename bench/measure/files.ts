/**
 * File and directory operations of clients, made of the same single system calls as those of the
 * usual tools.
 */

import * as sys from './calls.js'

/** The read size of cat(1) and cp(1). */
export const CHUNK = 128 << 10
/** The buffer for all reads; its content is not used. */
export const inbox = Buffer.alloc(CHUNK)
/** The data to write. It is never 0, so that no file system stores a hole. */
export const outbox = Buffer.alloc(CHUNK, 'tsoverlay ')

/** Opens, reads and closes a file. Returns the number of bytes. */
export const readFile = (at: sys.Path): number => {
  const fd = sys.open(at, sys.O.RDONLY)
  let bytes = 0
  for (let n; (n = sys.read(fd, inbox)) > 0;) bytes += n
  sys.close(fd)
  return bytes
}

/** Creates a file and writes the given number of bytes, in chunks. */
export const writeFile = (at: sys.Path, length: number, sync = false): void => {
  const fd = sys.open(at, sys.O.WRONLY | sys.O.CREAT | sys.O.TRUNC)
  for (let left = length; left > 0; left -= CHUNK) sys.write(fd, outbox, Math.min(left, CHUNK))
  if (sync) sys.fsync(fd)
  sys.close(fd)
}

/**
 * Visits everything below a directory with its attributes, as `find -size`: one open directory on
 * each level, and a stat on (directory, name). Returns the number of names.
 */
export const walk = (dir: number): number => {
  let count = 0
  const directories: sys.Path[] = []
  sys.readDir(dir, name => {
    count++
    if (sys.lstatIn(dir, name)) directories.push(Uint8Array.from(name))
  })
  for (const name of directories) {
    const fd = sys.openDir(dir, name)
    count += walk(fd)
    sys.close(fd)
  }
  return count
}

/**
 * Removes everything below a directory, as `rm -rf`: entries that are no directory by d_type are
 * not stat'ed. Returns the number of names.
 */
export const removeBelow = (dir: number): number => {
  const names: { name: sys.Path; isDirectory: boolean }[] = []
  sys.readDir(dir, (name, type) => {
    const isDirectory = type === sys.DT.UNKNOWN ? sys.lstatIn(dir, name) : type === sys.DT.DIR
    names.push({ name: Uint8Array.from(name), isDirectory })
  })
  let count = names.length
  for (const { name, isDirectory } of names) {
    if (isDirectory) {
      const fd = sys.openDir(dir, name)
      count += removeBelow(fd)
      sys.close(fd)
      sys.rmdirIn(dir, name)
    } else {
      sys.unlinkIn(dir, name)
    }
  }
  return count
}

/** Opens a directory, passes its descriptor to a function, and closes it. */
export const inDirectory = <T>(at: string, use: (dir: number) => T): T => {
  const dir = sys.open(sys.path(at), sys.O.RDONLY | sys.O.DIRECTORY)
  try {
    return use(dir)
  } finally {
    sys.close(dir)
  }
}

/**
 * What clients do with files and directories, made of single system calls as the usual tools make
 * them.
 */

import * as sys from './calls.js'

/** As much as cat(1) and cp(1) read at once. */
export const CHUNK = 128 << 10
/** One buffer for everything that is read; what is in it does not matter. */
export const inbox = Buffer.alloc(CHUNK)
/** What is written; never 0, so that no file system takes it for a hole. */
export const outbox = Buffer.alloc(CHUNK, 'tsoverlay ')

/** Opens, reads to the end, closes. Returns the number of bytes. */
export const readFile = (at: sys.Path): number => {
  const fd = sys.open(at, sys.O.RDONLY)
  let bytes = 0
  for (let n; (n = sys.read(fd, inbox)) > 0;) bytes += n
  sys.close(fd)
  return bytes
}

/** Creates a file and writes so many bytes, in chunks. */
export const writeFile = (at: sys.Path, length: number, sync = false): void => {
  const fd = sys.open(at, sys.O.WRONLY | sys.O.CREAT | sys.O.TRUNC)
  for (let left = length; left > 0; left -= CHUNK) sys.write(fd, outbox, Math.min(left, CHUNK))
  if (sync) sys.fsync(fd)
  sys.close(fd)
}

/**
 * Everything below a directory, each with its attributes, as `find -size`: one open directory at a
 * time on each level, a stat on (directory, name). Returns how many there are.
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
 * Removes everything below a directory, as `rm -rf`: what the listing calls no directory is not
 * looked at. Returns how many there were.
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

/** Uses a directory's descriptor and closes it. */
export const inDirectory = <T>(at: string, use: (dir: number) => T): T => {
  const dir = sys.open(sys.path(at), sys.O.RDONLY | sys.O.DIRECTORY)
  try {
    return use(dir)
  } finally {
    sys.close(dir)
  }
}

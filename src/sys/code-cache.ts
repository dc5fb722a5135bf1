/**
 * Runs files of the build with code that the engine has compiled in an earlier process. Compilation
 * takes a large part of a mount's time. The cache is in the package's directory. An entry is
 * trusted only if no user other than the package's owner can have written it.
 */

import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  statSync,
} from 'node:fs'
import { mkdir, open, rename, rm } from 'node:fs/promises'
import Module, { createRequire } from 'node:module'
import { basename, dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Script } from 'node:vm'

/** Code that can be stored for a file that was run. Structured clone can copy it. */
export interface Compiled {
  /** The path of the cache entry. */
  path: string
  code: Uint8Array
}

export interface Ran<Exports> {
  exports: Exports
  /** The file was run with code from the cache. */
  wasKept: boolean
  /**
   * Returns the code that was compiled so far. Undefined if the cache has an entry already, or if
   * this process may not write one.
   */
  compiled?: () => Compiled
}

const DIRECTORY = fileURLToPath(new URL('../code-cache', import.meta.url))

/** Whether only the package's owner can write to it. */
const isOwners = ({ uid, mode }: { uid: number; mode: number }, owner: number): boolean =>
  uid === owner && (mode & 0o022) === 0

/** The cached code. Undefined: there is no entry. Empty: the entry is not trusted. */
const readCode = (path: string, owner: number): Buffer | undefined => {
  let fd
  try {
    if (!isOwners(lstatSync(dirname(path)), owner)) return Buffer.of()
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const stat = fstatSync(fd)
    return stat.isFile() && isOwners(stat, owner) ? readFileSync(fd) : Buffer.of()
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ENOENT'
      ? undefined
      : Buffer.of()
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

/** Runs a CommonJS file of the build. It contains the build's hash (scripts/build.mjs). */
export const run = <Exports>(file: string, directory = DIRECTORY): Ran<Exports> => {
  const source = readFileSync(file, 'latin1') // the build writes only ASCII outside comments
  const build = /^const buildHash = "(\w+)"$/m.exec(source.slice(0, 200))?.[1]
  const { uid } = statSync(file)
  const path = `${directory}/${basename(file)}-${build}-${process.version}-${process.arch}`
  const kept = build === undefined ? Buffer.of() : readCode(path, uid)
  const script = new Script(Module.wrap(source), {
    filename: file,
    ...(kept === undefined || kept.length === 0 ? {} : { cachedData: kept }),
  })
  const module = { exports: {} as Exports }
  const body = script.runInThisContext() as (...names: unknown[]) => void
  body.call(module.exports, module.exports, createRequire(file), module, file, dirname(file))
  const ran = { exports: module.exports, wasKept: script.cachedDataRejected === false }
  if (kept !== undefined || process.geteuid?.() !== uid) return ran
  return {
    ...ran,
    compiled: () => ({ path, code: script.createCachedData() }),
  }
}

/** Stores code in the cache. Any error means only that the code is not stored. */
export const keep = async ({ path, code }: Compiled): Promise<void> => {
  const fresh = `${path}.${process.pid}`
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o755 })
    const file = await open(fresh, 'wx', 0o644)
    try {
      await file.writeFile(code)
      await file.chmod(0o644) // independent of umask(2)
      await file.datasync() // the engine does not detect damaged code
    } finally {
      await file.close()
    }
    await rename(fresh, path)
  } catch {
    await rm(fresh, { force: true }).catch(() => {})
  }
}

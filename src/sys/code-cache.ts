/**
 * Files of the build are run with the code that the engine has compiled of them before: to compile
 * them takes a large part of the time in which a mount is made. The code lies with the package, and
 * is believed as far as that: it counts where the package's owner alone can have written it.
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

/** What can be kept of a file that was run. Can be sent to another thread. */
export interface Compiled {
  /** Where it is kept. */
  path: string
  code: Uint8Array
}

export interface Ran<Exports> {
  exports: Exports
  /** It was run with code that was kept. */
  wasKept: boolean
  /** What was compiled up to now. Undefined: some is kept already, or none may be. */
  compiled?: () => Compiled
}

const DIRECTORY = fileURLToPath(new URL('../code-cache', import.meta.url))

/** Whether the package's owner alone can write there. */
const isOwners = ({ uid, mode }: { uid: number; mode: number }, owner: number): boolean =>
  uid === owner && (mode & 0o022) === 0

/** Undefined: there is none. Empty: there is one that does not count. */
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

/** Runs a CommonJS file of the build, of which it knows the build's hash (scripts/build.mjs). */
export const run = <Exports>(file: string, directory = DIRECTORY): Ran<Exports> => {
  const source = readFileSync(file, 'latin1') // outside comments the build writes ASCII alone
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

/** Whatever is in the way, it is only not kept. */
export const keep = async ({ path, code }: Compiled): Promise<void> => {
  const fresh = `${path}.${process.pid}`
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o755 })
    const file = await open(fresh, 'wx', 0o644)
    try {
      await file.writeFile(code)
      await file.chmod(0o644) // whatever umask(2) says
      await file.datasync() // the engine does not see damage
    } finally {
      await file.close()
    }
    await rename(fresh, path)
  } catch {
    await rm(fresh, { force: true }).catch(() => {})
  }
}

/**
 * The process and the calling thread: ids for file access, limits, affinity. Linux keeps
 * credentials per thread, and so does this module (modules are instantiated per worker thread).
 */

import { readFileSync } from 'node:fs'
import { dropEffective, hasCap, loadCaps, restoreFsCaps } from './caps.js'
import { CAP_DAC_OVERRIDE, F_DUPFD_CLOEXEC } from './constants.js'
import { E } from './errno.js'
import { eventfd } from './event.js'
import * as c from './libc.js'
import { fail, NR, syscall1 } from './libc.js'
import { put64, u32, u64, words } from './scratch.js'
import type { Result } from './types.js'

export { hasCap, raiseCap } from './caps.js'
export type { Result } from './types.js'

/** An id that no file has: setfsuid(2) with it only returns the current id. */
const NO_ID = 0xffff_ffff

// The thread's ids, once known. Setting the same id again then needs no system call.
let fsuid = -1
let fsgid = -1

/**
 * setfsgid(2) of this thread. Returns the previous id. The system call does not report failure;
 * call it with -1, which is not an id, to read the current id.
 */
export const setfsgid = (gid: number): Result => {
  const previous = c.setfsgid(gid)
  if (gid !== -1 && gid !== NO_ID) fsgid = -1
  return previous
}

/**
 * setfsuid(2) of this thread. Returns the previous id; see `setfsgid`. A change from 0 to another
 * id removes the file capabilities (CAP_DAC_OVERRIDE and others) from the effective set;
 * `pushFsIds` keeps them.
 */
export const setfsuid = (uid: number): Result => {
  const previous = c.setfsuid(uid)
  if (uid !== -1 && uid !== NO_ID) fsuid = -1
  return previous
}

const readIds = (): void => {
  fsuid = c.setfsuid(NO_ID)
  fsgid = c.setfsgid(NO_ID)
}

// The ids that were last set and verified. They need no second check.
let grantedUid = -1
let grantedGid = -1

/**
 * Sets the ids that differ and keeps the capabilities. The system calls do not report failure, so
 * `check` reads the ids back. Returns 0, or -EPERM with nothing or only the gid changed.
 */
const become = (uid: number, gid: number, check: boolean): Result => {
  if (gid !== fsgid) {
    c.setfsgid(gid)
    if (check && gid !== grantedGid) {
      if (c.setfsgid(NO_ID) !== gid) return -E.EPERM
      grantedGid = gid
    }
    fsgid = gid
  }
  if (uid !== fsuid) {
    c.setfsuid(uid)
    if (check && uid !== grantedUid) {
      if (c.setfsuid(NO_ID) !== uid) return -E.EPERM
      grantedUid = uid
    }
    const wasRoot = fsuid === 0
    fsuid = uid
    if (wasRoot !== (uid === 0)) return restoreFsCaps(uid === 0)
  }
  return 0
}

/** The ids to restore: pairs of uid and gid. */
const saved: number[] = []

/**
 * Makes `uid` and `gid` the owner of the files that this thread creates, until `popFsIds`, like
 * override_creds in kernel overlayfs. The thread keeps its effective capabilities, in particular
 * CAP_DAC_OVERRIDE, so it still has the server's access rights. It also keeps its supplementary
 * groups, because setgroups(2) cannot be undone in an unprivileged user namespace. Calls may be
 * nested. Each needs a `popFsIds`, even after an error.
 *
 * If the ids do not change, there is no system call. Otherwise there are five changes of
 * credentials (two ids, capset, and the ids back).
 *
 * Returns 0, or -EPERM with unchanged ids: CAP_SETUID or CAP_SETGID is missing, or the id is not
 * mapped in the user namespace.
 */
export const pushFsIds = (uid: number, gid: number): Result => {
  if (fsuid < 0 || fsgid < 0) readIds()
  const previousUid = fsuid
  const previousGid = fsgid
  saved.push(previousUid, previousGid)
  if (uid === previousUid && gid === previousGid) return 0
  const loaded = loadCaps()
  if (loaded < 0) return loaded
  const r = become(uid, gid, true)
  // Restoring the previous ids cannot fail.
  if (r < 0) void become(previousUid, previousGid, false)
  return r
}

/** Undoes the last `pushFsIds`. Does nothing if there is none. */
export const popFsIds = (): void => {
  const gid = saved.pop()
  const uid = saved.pop()
  if (uid === undefined || gid === undefined) return
  if (fsuid < 0 || fsgid < 0) readIds()
  // Restoring the previous ids cannot fail.
  void become(uid, gid, false)
}

/**
 * Removes a capability from this thread's effective set; `raiseCap` can restore it. Returns 0 or
 * -errno.
 */
export const dropCap = (cap: number): Result => {
  grantedUid = -1
  grantedGid = -1
  return dropEffective(cap)
}

/**
 * Whether this is the initial user namespace, which some capabilities require. It maps every id.
 */
export const inInitialNamespace = (): boolean => {
  try {
    return /^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'latin1'))
  } catch {
    return false
  }
}

/** Whether this thread may read every file regardless of permissions. */
export const mayReadAll = (): boolean => hasCap(CAP_DAC_OVERRIDE) && inInitialNamespace()

/** geteuid(2). */
export const geteuid = (): number => c.geteuid()

const CLONE_FS = 0x200

/**
 * unshare(CLONE_FS): this thread gets its own umask and current directory. Changing them no longer
 * affects other threads.
 */
export const unshareFs = (): Result => {
  const r = syscall1(NR.unshare, CLONE_FS)
  return r < 0 ? fail() : 0
}

/**
 * setsid(2): leaves the terminal. Returns the new session's id. -EPERM: the process is a process
 * group leader.
 */
export const setsid = (): Result => {
  const r = c.setsid()
  return r < 0 ? fail() : r
}

/**
 * umask(2): sets the mask of all threads that share it (see `unshareFs`). Returns the previous
 * mask.
 */
export const umask = (mode: number): number => c.umask(mode)

/** gettid(2): the kernel's id of this thread. */
export const gettid = (): number => syscall1(NR.gettid, 0)

/**
 * sched_yield(2): lets another runnable thread use this processor. Returns at once if there is
 * none.
 */
export const schedYield = (): void => void c.schedYield()

const RLIMIT_NOFILE = 7

const rlimit = (i: number): number => u32[i + 1]! * 0x1_0000_0000 + u32[i]!

/** getrlimit(2): the soft limit of open descriptors, or -errno. */
export const getrlimitNofile = (): Result =>
  c.getrlimit(RLIMIT_NOFILE, words) < 0 ? fail() : rlimit(0)

/** The hard limit of open descriptors, or -errno. `setrlimitNofile` needs no privilege up to it. */
export const getrlimitNofileHard = (): Result =>
  c.getrlimit(RLIMIT_NOFILE, words) < 0 ? fail() : rlimit(2)

/**
 * setrlimit(2): sets the soft limit of open descriptors. Above the hard limit it raises that, too,
 * which needs CAP_SYS_RESOURCE: -EPERM.
 */
export const setrlimitNofile = (soft: number): Result => {
  if (c.getrlimit(RLIMIT_NOFILE, words) < 0) return fail()
  const hard = rlimit(2)
  put64(0, soft)
  if (soft > hard) put64(2, soft)
  return c.setrlimit(RLIMIT_NOFILE, words) < 0 ? fail() : 0
}

/**
 * Raises the soft limit of descriptors to the hard limit, which needs no privilege. Returns the new
 * soft limit.
 */
export const raiseNofile = (): Result => {
  const hard = getrlimitNofileHard()
  // The return value below shows the result.
  if (hard > getrlimitNofile()) void setrlimitNofile(hard)
  return getrlimitNofile()
}

/** The table takes 64 KiB of kernel memory. */
const DESCRIPTORS = 8192

/**
 * Has the kernel enlarge the descriptor table to 8,192 entries at once, or to the process's limit.
 * The kernel doubles a full table (64, 128, 256, …). In a process with threads this waits until
 * every processor has passed through the scheduler (fs/file.c:expand_fdtable, synchronize_rcu), and
 * the open(2) that needs the descriptor blocks for milliseconds. Here a thread of koffi's waits. If
 * it fails, the table grows on demand.
 */
export const widenDescriptorTable = (): Promise<void> =>
  new Promise(resolve => {
    const last = Math.min(DESCRIPTORS, raiseNofile()) - 1
    const fd = eventfd()
    c.fcntl.async(fd, F_DUPFD_CLOEXEC, last, (err, far) => {
      if (err === null && far >= 0) c.close(far)
      if (fd >= 0) c.close(fd)
      resolve()
    })
  })

/**
 * sched_setaffinity(2): binds a thread (0: the calling one) to the processors whose bits are set in
 * `cpuMask` (0..63; a bigint above 53 bits). -EINVAL: none of them exists.
 */
export const schedSetaffinity = (tid: number, cpuMask: number | bigint): Result => {
  u64[0] = BigInt(cpuMask)
  return c.schedSetaffinity(tid, 8, words) < 0 ? fail() : 0
}

/** Returns unused memory of the C library to the system: malloc_trim(3), if the library has it. */
export const trimMemory = (): void => void c.mallocTrim?.(0)

/**
 * The process and the calling thread: whose files are created, limits, affinity. Credentials are
 * per thread on Linux, and so is the state kept here (modules are instantiated per worker thread).
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

/** An id no file has: asks for the current one. */
const NO_ID = 0xffff_ffff

// What the thread's ids are, once known: a change to the same ones needs no system call.
let fsuid = -1
let fsgid = -1

/**
 * setfsgid(2) of this thread; the previous id. Like the system call it cannot say that it failed:
 * ask with -1, which is no id.
 */
export const setfsgid = (gid: number): Result => {
  const previous = c.setfsgid(gid)
  if (gid !== -1 && gid !== NO_ID) fsgid = -1
  return previous
}

/**
 * setfsuid(2) of this thread; the previous id. See `setfsgid`. From 0 to another it takes the
 * capabilities over files (CAP_DAC_OVERRIDE ..) out of the effective set; `pushFsIds` does not.
 */
export const setfsuid = (uid: number): Result => {
  const previous = c.setfsuid(uid)
  if (uid !== -1 && uid !== NO_ID) fsuid = -1
  return previous
}

const askIds = (): void => {
  fsuid = c.setfsuid(NO_ID)
  fsgid = c.setfsgid(NO_ID)
}

// The ids taken last with success: no need to check them again.
let grantedUid = -1
let grantedGid = -1

/**
 * Changes what differs and keeps the capabilities. The calls cannot say that they failed; asking
 * costs 110 ns each. 0, or -EPERM with nothing or the gid changed.
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

/** The ids to go back to: pairs of uid and gid. */
const saved: number[] = []

/**
 * Makes `uid` and `gid` the owner of what this thread creates, until `popFsIds`, as kernel
 * overlayfs' override_creds does: the thread keeps its effective capabilities (in particular
 * CAP_DAC_OVERRIDE: it may still do what the daemon may) and its supplementary groups (setgroups(2)
 * cannot be undone in an unprivileged user namespace). Calls may be nested; each needs its pop,
 * also after an error.
 *
 * Same ids as now: no system call. Another uid and gid: 3.6 us including the pop, since each change
 * of credentials costs the kernel 0.7 us and there are 5 (two ids, capset, and the ids back).
 *
 * 0, or -EPERM: the ids were refused (no CAP_SETUID or CAP_SETGID, or not mapped in the user
 * namespace) and are as before.
 */
export const pushFsIds = (uid: number, gid: number): Result => {
  if (fsuid < 0 || fsgid < 0) askIds()
  const previousUid = fsuid
  const previousGid = fsgid
  saved.push(previousUid, previousGid)
  if (uid === previousUid && gid === previousGid) return 0
  const loaded = loadCaps()
  if (loaded < 0) return loaded
  const r = become(uid, gid, true)
  // Ids that were its own are not refused.
  if (r < 0) void become(previousUid, previousGid, false)
  return r
}

/** Undoes the last `pushFsIds`. Without one it does nothing. */
export const popFsIds = (): void => {
  const gid = saved.pop()
  const uid = saved.pop()
  if (uid === undefined || gid === undefined) return
  if (fsuid < 0 || fsgid < 0) askIds()
  // Ids that were its own are not refused.
  void become(uid, gid, false)
}

/**
 * Takes a capability out of this thread's effective set; `raiseCap` can bring it back. 0 or -errno.
 */
export const dropCap = (cap: number): Result => {
  grantedUid = -1
  grantedGid = -1
  return dropEffective(cap)
}

/**
 * Whether this is the initial user namespace, where alone some capabilities count: it maps every
 * id.
 */
export const inInitialNamespace = (): boolean => {
  try {
    return /^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'latin1'))
  } catch {
    return false
  }
}

/** Whether this thread may read whatever there is: no one's permissions hold it back. */
export const mayReadAll = (): boolean => hasCap(CAP_DAC_OVERRIDE) && inInitialNamespace()

/** geteuid(2). */
export const geteuid = (): number => c.geteuid()

const CLONE_FS = 0x200

/**
 * unshare(CLONE_FS): from here on this thread has its own umask and working directory, and changing
 * them does not touch the rest of the process.
 */
export const unshareFs = (): Result => {
  const r = syscall1(NR.unshare, CLONE_FS)
  return r < 0 ? fail() : 0
}

/**
 * setsid(2): leaves the terminal; the new session's id. -EPERM for the leader of a process group.
 */
export const setsid = (): Result => {
  const r = c.setsid()
  return r < 0 ? fail() : r
}

/** umask(2): sets the mask of all threads that share it (see `unshareFs`); the previous one. */
export const umask = (mode: number): number => c.umask(mode)

/** gettid(2): the kernel's id of this thread. */
export const gettid = (): number => syscall1(NR.gettid, 0)

/**
 * sched_yield(2): lets another thread that waits for this processor go first; at once if there is
 * none.
 */
export const schedYield = (): void => void c.schedYield()

const RLIMIT_NOFILE = 7

const rlimit = (i: number): number => u32[i + 1]! * 0x1_0000_0000 + u32[i]!

/** getrlimit(2): how many descriptors the process may open now (the soft limit); or -errno. */
export const getrlimitNofile = (): Result =>
  c.getrlimit(RLIMIT_NOFILE, words) < 0 ? fail() : rlimit(0)

/** How far `setrlimitNofile` may go without privilege (the hard limit); or -errno. */
export const getrlimitNofileHard = (): Result =>
  c.getrlimit(RLIMIT_NOFILE, words) < 0 ? fail() : rlimit(2)

/**
 * setrlimit(2): how many descriptors the process may open. Beyond the hard limit that is raised as
 * well, which needs CAP_SYS_RESOURCE: -EPERM.
 */
export const setrlimitNofile = (soft: number): Result => {
  if (c.getrlimit(RLIMIT_NOFILE, words) < 0) return fail()
  const hard = rlimit(2)
  put64(0, soft)
  if (soft > hard) put64(2, soft)
  return c.setrlimit(RLIMIT_NOFILE, words) < 0 ? fail() : 0
}

/**
 * Raises the soft limit of descriptors to the hard one, which takes no privilege. What it is then.
 */
export const raiseNofile = (): Result => {
  const hard = getrlimitNofileHard()
  // What came of it is asked next.
  if (hard > getrlimitNofile()) void setrlimitNofile(hard)
  return getrlimitNofile()
}

/** 64 KiB of the kernel's memory. */
const DESCRIPTORS = 8192

/**
 * Has the kernel make room for 8,192 descriptors at once, or as many as the process may open. Its
 * table doubles when it is full (64, 128, 256 ...), and of a process with threads that waits until
 * every processor has passed through the scheduler (fs/file.c:expand_fdtable, synchronize_rcu): 4
 * to 32 ms in which whoever opens something stands still. Here a thread of koffi's does. Where that
 * fails, the table grows when it has to.
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
 * `cpuMask` (0..63; a bigint beyond 53 bits). -EINVAL: none of them exists.
 */
export const schedSetaffinity = (tid: number, cpuMask: number | bigint): Result => {
  u64[0] = BigInt(cpuMask)
  return c.schedSetaffinity(tid, 8, words) < 0 ? fail() : 0
}

/**
 * Gives memory back to the system that the C library keeps for later: malloc_trim(3), where there
 * is one.
 */
export const trimMemory = (): void => void c.mallocTrim?.(0)

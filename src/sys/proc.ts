/**
 * The process and the calling thread: whose files are created, limits, affinity. Credentials are per
 * thread on Linux, and so is the state kept here (modules are instantiated per worker thread).
 */

import { loadCaps, restoreFsCaps } from './caps.js'
import { E } from './errno.js'
import * as c from './libc.js'
import { fail, NR, syscall1 } from './libc.js'
import { put64, u32, u64, words } from './scratch.js'
import type { Result } from './types.js'

export { dropCap, hasCap, raiseCap } from './caps.js'
export type { Result } from './types.js'

/** An id no file has: asks for the current one. */
const NO_ID = 0xffff_ffff

// What the thread's ids are, once known: a change to the same ones needs no system call.
let fsuid = -1
let fsgid = -1

/**
 * setfsgid(2) of this thread; the previous id. Like the system call it cannot say that it failed: ask
 * with -1, which is no id.
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

/** Changes what differs and keeps the capabilities. 0 or -EPERM (with nothing or the gid changed). */
const become = (uid: number, gid: number): Result => {
  if (gid !== fsgid) {
    c.setfsgid(gid)
    if (c.setfsgid(NO_ID) !== gid) return -E.EPERM
    fsgid = gid
  }
  if (uid !== fsuid) {
    c.setfsuid(uid)
    if (c.setfsuid(NO_ID) !== uid) return -E.EPERM
    const wasRoot = fsuid === 0
    fsuid = uid
    if (wasRoot !== (uid === 0)) return restoreFsCaps(uid === 0)
  }
  return 0
}

/** The ids to go back to: pairs of uid and gid. */
const saved: number[] = []

/**
 * Makes `uid` and `gid` the owner of what this thread creates, until `popFsIds`, as kernel overlayfs'
 * override_creds does: the thread keeps its effective capabilities (in particular CAP_DAC_OVERRIDE: it
 * may still do what the daemon may) and its supplementary groups (setgroups(2) cannot be undone in an
 * unprivileged user namespace). Calls may be nested; each needs its pop, also after an error.
 *
 * Same ids as now: no system call. Otherwise up to 5, about 1.5 us with the pop.
 *
 * 0, or -EPERM: the ids were refused (no CAP_SETUID or CAP_SETGID, or not mapped in the user
 * namespace) and are as before.
 */
export const pushFsIds = (uid: number, gid: number): Result => {
  if (fsuid < 0 || fsgid < 0) {
    const r = loadCaps()
    if (r < 0) return r
    fsuid = c.setfsuid(NO_ID)
    fsgid = c.setfsgid(NO_ID)
  }
  const previousUid = fsuid
  const previousGid = fsgid
  saved.push(previousUid, previousGid)
  const r = become(uid, gid)
  if (r < 0) become(previousUid, previousGid)
  return r
}

/** Undoes the last `pushFsIds`. Without one it does nothing. */
export const popFsIds = (): void => {
  const gid = saved.pop()
  const uid = saved.pop()
  if (uid !== undefined && gid !== undefined) become(uid, gid)
}

/** geteuid(2). */
export const geteuid = (): number => c.geteuid()

/** umask(2): sets the process' mask (all threads); the previous one. */
export const umask = (mode: number): number => c.umask(mode)

/** gettid(2): the kernel's id of this thread. */
export const gettid = (): number => syscall1(NR.gettid, 0)

const RLIMIT_NOFILE = 7

const rlimit = (i: number): number => u32[i + 1]! * 0x1_0000_0000 + u32[i]!

/** getrlimit(2): how many descriptors the process may open now (the soft limit); or -errno. */
export const getrlimitNofile = (): Result =>
  c.getrlimit(RLIMIT_NOFILE, words) < 0 ? fail() : rlimit(0)

/** How far `setrlimitNofile` may go without privilege (the hard limit); or -errno. */
export const getrlimitNofileHard = (): Result =>
  c.getrlimit(RLIMIT_NOFILE, words) < 0 ? fail() : rlimit(2)

/**
 * setrlimit(2): how many descriptors the process may open. Beyond the hard limit that is raised as well,
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
 * sched_setaffinity(2): binds a thread (0: the calling one) to the processors whose bits are set in
 * `cpuMask` (0..63; a bigint beyond 53 bits). -EINVAL: none of them exists.
 */
export const schedSetaffinity = (tid: number, cpuMask: number | bigint): Result => {
  u64[0] = BigInt(cpuMask)
  return c.schedSetaffinity(tid, 8, words) < 0 ? fail() : 0
}

/**
 * The calling thread's effective capabilities, capabilities(7). Linux keeps credentials per thread,
 * and capset(2) with pid 0 changes only the calling thread. So a worker thread may drop
 * capabilities that other threads keep. Re-exported by proc.ts.
 */

import {
  CAP_CHOWN,
  CAP_DAC_OVERRIDE,
  CAP_DAC_READ_SEARCH,
  CAP_FOWNER,
  CAP_FSETID,
  CAP_LINUX_IMMUTABLE,
  CAP_MAC_OVERRIDE,
  CAP_MKNOD,
} from './constants.js'
import { E } from './errno.js'
import { capget, capset, fail, rawAddress } from './libc.js'
import type { Result } from './types.js'

/** _LINUX_CAPABILITY_VERSION_3 */
const VERSION = 0x20080522

// struct __user_cap_header_struct {u32 version; int pid}, then two of struct __user_cap_data_struct
// {u32 effective, permitted, inheritable}: for capabilities 0..31 and 32..63.
const memory = new ArrayBuffer(32)
const block = new Uint32Array(memory)
const header = rawAddress(memory)
const data = header + 8
const EFFECTIVE = 2
const PERMITTED = 3
/** Distance between the word for capabilities 0..31 and the word for 32..63. */
const NEXT_WORD = 3

/** Once loaded, the block holds the intended capabilities of this thread. */
let loaded = false

const load = (): Result => {
  if (loaded) return 0
  block[0] = VERSION
  block[1] = 0
  if (capget(header, data) < 0) return fail()
  loaded = true
  return 0
}

const store = (): Result => (capset(header, data) < 0 ? fail() : 0)

const wordOf = (cap: number): number => EFFECTIVE + (cap >>> 5) * NEXT_WORD
const bitOf = (cap: number): number => 1 << (cap & 31)

/** Whether the thread has capability `cap` (CAP_*) in its effective set. */
export const hasCap = (cap: number): boolean =>
  load() === 0 && (block[wordOf(cap)]! & bitOf(cap)) !== 0

/** Whether the thread has any permitted capability. */
export const hasAnyCap = (): boolean =>
  load() === 0 && (block[PERMITTED]! !== 0 || block[PERMITTED + NEXT_WORD]! !== 0)

const change = (cap: number, on: boolean): Result => {
  if (!(cap >= 0 && cap < 64)) return -E.EINVAL
  const r = load()
  if (r < 0) return r
  const i = wordOf(cap)
  // For unknown capability numbers capset(2) succeeds without effect.
  if (on && !(block[i + PERMITTED - EFFECTIVE]! & bitOf(cap))) return -E.EPERM
  const before = block[i]!
  block[i] = on ? before | bitOf(cap) : before & ~bitOf(cap)
  const result = store()
  if (result < 0) block[i] = before
  return result
}

/** Removes a capability from the effective set. Returns 0 or -errno. */
export const dropEffective = (cap: number): Result => change(cap, false)

/** Adds a permitted capability to the effective set. -EPERM: it is not permitted. */
export const raiseCap = (cap: number): Result => change(cap, true)

/**
 * CAP_FS_SET of linux/capability.h: the capabilities that the kernel drops and raises when the
 * fsuid changes.
 */
const FS_SET = [
  CAP_CHOWN,
  CAP_DAC_OVERRIDE,
  CAP_DAC_READ_SEARCH,
  CAP_FOWNER,
  CAP_FSETID,
  CAP_LINUX_IMMUTABLE,
  CAP_MKNOD,
  CAP_MAC_OVERRIDE,
]
const FS_LOW = FS_SET.filter(n => n < 32).reduce((set, n) => set | bitOf(n), 0)
const FS_HIGH = FS_SET.filter(n => n >= 32).reduce((set, n) => set | bitOf(n), 0)

/**
 * Call this after the fsuid changed from 0 to another (`root` false) or back (true). The kernel has
 * then removed FS_SET from the effective set, or raised all permitted capabilities of it
 * (security/commoncap.c:cap_task_fix_setuid). Restores the previous set, with a capset(2) only if
 * the set differs. Returns 0 or -errno.
 */
export const restoreFsCaps = (root: boolean): Result => {
  const r = load()
  if (r < 0) return r
  const low = block[EFFECTIVE]! & FS_LOW
  const high = block[EFFECTIVE + NEXT_WORD]! & FS_HIGH
  const nowLow = root ? block[PERMITTED]! & FS_LOW : 0
  const nowHigh = root ? block[PERMITTED + NEXT_WORD]! & FS_HIGH : 0
  return low === nowLow && high === nowHigh ? 0 : store()
}

/**
 * Reads the capabilities unless they are known. Call it before the fsuid changes, which changes
 * them.
 */
export const loadCaps = load

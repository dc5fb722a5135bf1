/**
 * The calling thread's effective capabilities, capabilities(7). Linux keeps credentials per thread,
 * and capset(2) with pid 0 is about the calling thread only: a worker thread may drop what its work
 * must not have while the others keep it. Re-exported by proc.ts.
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
/** From a word for capabilities 0..31 to the one for 32..63. */
const NEXT_WORD = 3

/** Once loaded, the block is what this thread's capabilities are meant to be. */
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

/** Whether the thread has any capability that it may put into its effective set. */
export const hasAnyCap = (): boolean =>
  load() === 0 && (block[PERMITTED]! !== 0 || block[PERMITTED + NEXT_WORD]! !== 0)

const change = (cap: number, on: boolean): Result => {
  if (!(cap >= 0 && cap < 64)) return -E.EINVAL
  const r = load()
  if (r < 0) return r
  const i = wordOf(cap)
  // For numbers it does not know the kernel would say yes and do nothing.
  if (on && !(block[i + PERMITTED - EFFECTIVE]! & bitOf(cap))) return -E.EPERM
  const before = block[i]!
  block[i] = on ? before | bitOf(cap) : before & ~bitOf(cap)
  const result = store()
  if (result < 0) block[i] = before
  return result
}

/** Takes a capability out of the effective set. 0 or -errno. */
export const dropEffective = (cap: number): Result => change(cap, false)

/** Puts a permitted capability into the effective set. -EPERM: not permitted. */
export const raiseCap = (cap: number): Result => change(cap, true)

/** CAP_FS_SET of linux/capability.h: what the kernel drops and raises when the fsuid changes. */
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
 * To be called when the fsuid went from 0 to another (`root` false) or back (true): the kernel has
 * dropped FS_SET from the effective set, or raised all of it that is permitted
 * (security/commoncap.c:cap_task_fix_setuid). Undoes that, with a capset(2) only where it made a
 * difference. 0 or -errno.
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

/** Reads the capabilities if that has not been done: before the fsuid changes, and they with it. */
export const loadCaps = load

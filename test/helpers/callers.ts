/**
 * Runs code as another caller, down to single capabilities. It uses raw system calls, so that only
 * the calling thread changes.
 */

import * as fs from 'node:fs'

// oxlint-disable-next-line no-restricted-imports -- the test's own calls must not share code with what is tested
import koffi from 'koffi'
import { withCredentials, type Credentials } from './syscalls.js'

export const CAP = {
  CHOWN: 0,
  FOWNER: 3,
  FSETID: 4,
  LINUX_IMMUTABLE: 9,
  SYS_PTRACE: 19,
  SYS_ADMIN: 21,
} as const

/** The capabilities in which the caller differs: root lacks `lacks`, any other user has `has`. */
export interface Caller extends Credentials {
  name: string
  lacks?: number[]
  has?: number[]
}

const libc = koffi.load('libc.so.6')
const capget = libc.func('int capget(void *header, void *data)') as (...args: unknown[]) => number
const capset = libc.func('int capset(void *header, const void *data)') as typeof capget

/** _LINUX_CAPABILITY_VERSION_3, and the calling thread. */
const header = Uint32Array.of(0x20080522, 0)

/** Runs `use` with other effective capabilities. */
const withEffective = <T>(change: (effective: number) => number, use: () => T): T => {
  // {effective, permitted, inheritable} for capabilities 0 to 31, and the same for the others.
  const data = new Uint32Array(6)
  if (capget(header, data) < 0) throw new Error(`capget: errno ${koffi.errno()}`)
  const before = Uint32Array.from(data)
  const set = (to: Uint32Array): void => {
    if (capset(header, to) < 0) throw new Error(`capset: errno ${koffi.errno()}`)
  }
  data[0] = change(data[0]!) >>> 0
  set(data)
  try {
    return use()
  } finally {
    set(before)
  }
}

/** Whether this process has a capability. */
export const isEffective = (cap: number): boolean => {
  const set = /CapEff:\s*(\w+)/.exec(fs.readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '0'
  return ((BigInt(`0x${set}`) >> BigInt(cap)) & 1n) === 1n
}

const bits = (caps: number[]): number => caps.reduce((set, cap) => set | (1 << cap), 0)

export const withCaller = <T>(caller: Caller, use: () => T): T =>
  withCredentials(caller, () => {
    const lacks = bits(caller.lacks ?? [])
    const has = bits(caller.has ?? [])
    return lacks === 0 && has === 0 ? use() : withEffective(now => (now & ~lacks) | has, use)
  })

/** Shared libraries that others want to find in the process. */

import koffi from 'koffi'

/** A library is unloaded when nothing refers to it any more. */
const kept: unknown[] = []

/**
 * dlopen(3), for good. Who needs a library of the same soname gets this one. False: it can't be
 * loaded.
 */
export const preload = (path: string): boolean => {
  try {
    kept.push(koffi.load(path))
    return true
  } catch {
    return false
  }
}

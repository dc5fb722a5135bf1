/** Preloads shared libraries that other libraries look for in the process. */

import koffi from 'koffi'

/** koffi unloads a library when it is no longer referenced. */
const kept: unknown[] = []

/**
 * dlopen(3) without a dlclose(3). A library that needs the same soname then gets this one. False:
 * it cannot be loaded.
 */
export const preload = (path: string): boolean => {
  try {
    kept.push(koffi.load(path))
    return true
  } catch {
    return false
  }
}

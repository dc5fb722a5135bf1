/** Synchronous messages to the user, so that no line is lost when the process exits afterwards. */

import { writeSync } from 'node:fs'

/** Writes one line to standard error. A closed reader is ignored. */
export const say = (line: string): void => {
  const bytes = Buffer.from(`${line}\n`)
  for (let from = 0, tries = 0; from < bytes.length && tries < 100;) {
    try {
      from += writeSync(2, bytes, from)
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) return
      tries++
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10)
    }
  }
}

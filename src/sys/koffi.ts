/**
 * Loads the foreign-function library. Its binary is a separate package for each platform, which npm
 * omits with `--omit=optional`. This module imports nothing that needs the library.
 */

import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'

import type Koffi from 'koffi'

/** ELIBACC of errno(3): cannot access a needed shared library. */
const CODE = 'ELIBACC'

export interface KoffiMissing extends Error {
  readonly code: typeof CODE
}

export const isKoffiMissing = (error: unknown): error is KoffiMissing =>
  error instanceof Error && 'code' in error && error.code === CODE

const versionOf = (require: NodeJS.Require): string => {
  try {
    const path = `${dirname(require.resolve('koffi'))}/package.json`
    return `@${(JSON.parse(readFileSync(path, 'utf8')) as { version: string }).version}`
  } catch {
    return ''
  }
}

/**
 * @param require loads packages on behalf of this one
 * @throws {KoffiMissing} its message has one line
 */
export const loadKoffi = (require: NodeJS.Require): typeof Koffi => {
  try {
    return require('koffi') as typeof Koffi
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause)
    const [why = ''] = text.split('\n', 1)
    const binary = `@koromix/koffi-${process.platform}-${process.arch}${versionOf(require)}`
    throw Object.assign(
      new Error(
        `koffi's binary package can't be loaded (${why}): install without --omit=optional, or add it: npm install ${binary}`,
        { cause },
      ),
      { code: CODE },
    )
  }
}

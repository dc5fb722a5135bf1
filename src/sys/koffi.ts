/**
 * The foreign-function library, loaded. Its binary is a package of its own for each platform, which
 * npm leaves out with `--omit=optional`. Imports nothing that needs it.
 */

import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'

import type Koffi from 'koffi'

/** ELIBACC of errno(3): can not access a needed shared library. */
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
 * @param require loads a package for this one
 * @throws {KoffiMissing} with a message of one line
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

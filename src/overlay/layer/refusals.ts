/** Mount errors that several files report. */

import { MountError } from '../../errors.js'
import { errnoMessage, errnoName } from '../../sys/errno.js'
import type { Layer } from './layer.js'
import type { Result } from '../ops.js'

/** A hint for the user after a failed change in the workdir. */
const remedy = (code: string): string => {
  switch (code) {
    case 'ENOSPC':
      return 'make room on its file system (df, df -i)'
    case 'EDQUOT':
      return 'make room within the quota (quota -s)'
    case 'EMFILE':
    case 'ENFILE':
      return 'raise the limit (ulimit -n)'
    case 'EIO':
      return 'is its disk in order?'
    default:
      return 'is its file system writable?'
  }
}

export function workdirError(path: string | undefined, result: Result): MountError {
  const code = errnoName(-result)
  return new MountError(
    `workdir=${path} can't be prepared: ${errnoMessage(-result)}; ${remedy(code)}`,
    { option: 'workdir', path: path ?? '', code },
  )
}

/**
 * If the root of a layer can't be fully read, it may hide everything below, or be on another file
 * system.
 */
export function rootError(
  { path, isUpper }: Pick<Layer, 'path' | 'isUpper'>,
  result: Result,
): MountError {
  const option = isUpper ? 'upperdir' : 'lowerdir'
  return new MountError(
    `${option}=${path}: its root can't be read: ${errnoMessage(-result)}; is its disk in order?`,
    { option, path, code: errnoName(-result) },
  )
}

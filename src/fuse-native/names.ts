/**
 * Converts names between the union (bytes) and the package (JavaScript strings). The package
 * decodes every path as UTF-8, so an invalid byte arrives as U+FFFD and is lost. So a name with
 * U+FFFD is refused, and a name that is not valid UTF-8 is never passed to the package.
 */

import { isUtf8 } from 'node:buffer'
import type { ByteString } from '../overlay/ops.js'

const ASCII = /^[^\u0080-\uffff]*$/

/** The bytes of a name from the package, or undefined if they are not known. */
export const toBytes = (text: string): ByteString | undefined => {
  if (ASCII.test(text)) return text
  return text.includes('\ufffd') ? undefined : Buffer.from(text, 'utf8').latin1Slice()
}

/** A name for the package, or undefined if it cannot be expressed. */
export const toText = (bytes: ByteString): string | undefined => {
  if (ASCII.test(bytes)) return bytes
  const buf = Buffer.from(bytes, 'latin1')
  return isUtf8(buf) ? buf.toString('utf8') : undefined
}

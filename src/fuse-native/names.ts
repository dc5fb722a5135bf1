/**
 * Names between the union, where they are bytes, and the package, which has them as JavaScript
 * strings: every path is decoded as UTF-8 before it gets here, and what is not UTF-8 is U+FFFD by
 * then, which could have been anything. So a name with U+FFFD is refused, and one that is no UTF-8
 * is never handed over.
 */

import { isUtf8 } from 'node:buffer'
import type { ByteString } from '../overlay/ops.js'

const ASCII = /^[^\u0080-\uffff]*$/

/** The bytes of what the package gave, or undefined where they are not known. */
export const toBytes = (text: string): ByteString | undefined => {
  if (ASCII.test(text)) return text
  return text.includes('\ufffd') ? undefined : Buffer.from(text, 'utf8').latin1Slice()
}

/** What to give to the package, or undefined where it can't express that. */
export const toText = (bytes: ByteString): string | undefined => {
  if (ASCII.test(bytes)) return bytes
  const buf = Buffer.from(bytes, 'latin1')
  return isUtf8(buf) ? buf.toString('utf8') : undefined
}

/**
 * The table of handlers. It omits these operations of the package:
 *
 * - access: with `default_permissions` the kernel never sends it;
 * - flush: no data waits for a close. Without a handler libfuse answers ENOSYS, and the kernel does
 *   not ask again.
 */

import { attrHandlers, xattrHandlers } from './handlers-attr.js'
import { dataHandlers } from './handlers-data.js'
import { nameHandlers } from './handlers-names.js'
import type { Operations } from './package.js'
import type { Session } from './session.js'

export const handlersOf = (s: Session): Operations => ({
  ...nameHandlers(s),
  ...attrHandlers(s),
  ...dataHandlers(s),
  // binding.ts implements these.
  fgetattr: true,
  utimens: true,
  ...(s.tuning.xattrs ? { ...xattrHandlers(s), getxattr: true, listxattr: true } : {}),
})

/**
 * The table of handlers. Of those that the package knows these are left out:
 *
 * - access: with `default_permissions` the kernel never asks;
 * - flush: nothing is held back until a close. Not to be asked is libfuse's ENOSYS, and the
 *   kernel's last question.
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
  // binding.ts has these.
  fgetattr: true,
  utimens: true,
  ...(s.tuning.xattrs ? { ...xattrHandlers(s), getxattr: true, listxattr: true } : {}),
})

/** The union without any option. The table of options (table.ts) takes its defaults from here. */

import type { UnionOptions } from '../overlay/options.js'

export const defaultUnionOptions: UnionOptions = {
  lower: [],
  redirectDir: 'off',
  whiteout: 'auto',
  index: true,
  shared: true,
  userxattr: 'auto',
  volatile: false,
  fsync: true,
  readOnly: false,
  xattrPermissions: 0,
}

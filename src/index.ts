/** The library: `import { mount } from 'tsoverlay'`. */

export { MountError } from './errors.js'
export type { Logger, LogLevel, LogMethod } from './log.js'
export {
  mount,
  type IoMode,
  type Mount,
  type MountOptions,
  type NoOtherKeys,
  type Transport,
} from './server/mount.js'
export type { MountFlag } from './config/mount-flags.js'
export type { IdRange, RedirectDir, WhiteoutForm, XattrPermissions } from './overlay/options.js'

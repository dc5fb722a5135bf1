/** The library: `import { mount } from 'tsoverlay'`. */

export { MountError } from './errors.js'
export type { Logger, LogLevel, LogMethod } from './log.js'
export { mount, type MountOptions, type NoOtherKeys } from './server/mount.js'
export type { Mount } from './server/live-mount.js'
export type { IoMode, MountFlag, Transport } from './config/types.js'
export type { IdRange, RedirectDir, WhiteoutForm, XattrPermissions } from './overlay/options.js'

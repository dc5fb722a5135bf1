#!/usr/bin/env node
/**
 * The `tsoverlay` program. A mount in the background is handed to a second process at once, before
 * anything else is loaded: this one only waits for it (daemon.ts). Everything else happens here.
 */

import { argv, exit } from 'node:process'

/** `mount` without `-f`, and no question for help. In doubt false: program.ts looks properly. */
const isBackgroundMount = ([command, ...rest]: readonly string[]): boolean =>
  command === 'mount' &&
  !rest.some(arg => /^-[a-zA-Z]*[fh]/.test(arg) || arg.startsWith('--fore') || arg === '--help')

const args = argv.slice(2)
if (isBackgroundMount(args)) {
  const { startInBackground } = await import('./daemon.js')
  exit(await startInBackground(args))
} else {
  const { cacheCode } = await import('./code-cache.js')
  cacheCode()
  const { run } = await import('./program.js')
  exit(await run(args))
}

/**
 * The second process of a mount in the background: the same program with the same arguments, and a
 * pipe on which it tells the first one that the mount is live. Started by daemon.ts only.
 */

import { argv, exit } from 'node:process'

import { cacheCode } from './code-cache.js'

cacheCode()
const [{ STATUS_FD }, { run }] = await Promise.all([import('./daemon.js'), import('./program.js')])
exit(await run(argv.slice(2), STATUS_FD))

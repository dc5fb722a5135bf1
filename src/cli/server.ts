/**
 * The second process of a mount in the background: the same program with the same arguments, and a
 * pipe on which it tells the first one that the mount is live. Started by daemon.ts only.
 */

import { argv, exit } from 'node:process'

import { startEarly } from '../fuse/union-thread.js'
import { cacheCode } from './code-cache.js'
import { closeForeignDescriptors } from './descriptors.js'
import { tuneEngine } from './engine.js'
import { STATUS_FD } from './status-fd.js'

closeForeignDescriptors([STATUS_FD])
cacheCode()
tuneEngine()
// The union's thread loads its code while this one finds out what to mount.
const thread = startEarly()
const { run } = await import('./program.js')
exit(await run(argv.slice(2), { statusFd: STATUS_FD, thread }))

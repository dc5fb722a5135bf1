/**
 * The second process of a mount in the background: the same program with the same arguments, which tells the first
 * one that the mount is live. Started by tsoverlay.sh and daemon.ts only.
 */

import { exit } from 'node:process'

import { startEarly } from '../fuse/union-thread.js'
import { takeCall } from './called.js'
import { cacheCode } from './code-cache.js'
import { closeForeignDescriptors } from './descriptors.js'
import { tuneEngine } from './engine.js'
import { takeLauncher } from './launcher.js'
import { say } from './say.js'

closeForeignDescriptors()
const call = takeCall()
const launcher = takeLauncher()
cacheCode()
tuneEngine()
// The union's thread loads its code while this one finds out what to mount.
const thread = startEarly()

const begin = async (): Promise<number> => {
  const { answer, run } = await import('./program.js')
  if (call.kind !== 'run') return call.kind === 'nothing' ? 0 : answer(call)
  for (const note of call.notes) say(note)
  return run(call.args, { launcher, thread })
}
void begin().then(exit)

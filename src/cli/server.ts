/**
 * The second process of a mount in the background: the same program with the same arguments, which tells the first
 * one that the mount is live. Started by tsoverlay.sh and daemon.ts only.
 */

import { exit } from 'node:process'

import { startEarly, type UnionThread } from '../fuse/union-thread.js'
import { takeCall } from './called.js'
import { cacheCode } from './code-cache.js'
import { closeForeignDescriptors } from './descriptors.js'
import { ExitCode } from './exit-codes.js'
import { takeLauncher, takeUnanswered } from './launcher.js'
import { say } from './say.js'
import { workingDirectory } from './working-directory.js'

closeForeignDescriptors()
const here = workingDirectory()
const call = takeCall()
const launcher = takeLauncher()
const unanswered = takeUnanswered()
cacheCode()
// The union's thread loads its code while this one finds out what to mount.
const early = (): UnionThread => {
  try {
    return startEarly()
  } catch (error) {
    say(`tsoverlay: ${error instanceof Error ? error.message : String(error)}`)
    exit(ExitCode.FAILED)
  }
}
const thread = early()

const begin = async (): Promise<number> => {
  const { answer, run } = await import('./program.js')
  if (call.kind !== 'run') return call.kind === 'nothing' ? 0 : answer(call)
  for (const note of call.notes) say(note)
  return run(call.args, { launcher, thread, here, unanswered })
}
void begin().then(exit)

/**
 * The second process of a background mount. It runs the same program with the same arguments and
 * signals its parent when the mount is live. Only tsoverlay.sh and daemon.ts start it.
 */

import { exit } from 'node:process'

import { startEarly, type UnionThread } from '../server/thread.js'
import { keep } from '../sys/code-cache.js'
import { takeCall } from './invocation.js'
import { closeForeignDescriptors } from './descriptors.js'
import { ExitCode } from './exit-codes.js'
import { keepLocked, takeLauncher, takeStarting, takeUnanswered } from './background.js'
import { loadProgram } from './load-program.js'
import { say } from './say.js'
import { workingDirectory } from './working-directory.js'

const starting = takeStarting()
closeForeignDescriptors(starting === undefined ? [] : [starting.fd])
const askable = keepLocked(starting)
const here = workingDirectory()
const call = takeCall()
const launcher = takeLauncher()
const unanswered = takeUnanswered()
// The union's thread loads its code while the main thread parses the command line.
const early = (): UnionThread => {
  try {
    return startEarly()
  } catch (error) {
    say(`tsoverlay: ${error instanceof Error ? error.message : String(error)}`)
    exit(ExitCode.FAILED)
  }
}
const thread = early()

/**
 * The delay after which the program's compiled code is cached once the mount is live, in
 * milliseconds.
 */
const KEEP_MS = 1000

const begin = async (): Promise<number> => {
  const { exports: program, compiled } = loadProgram()
  const onLive = (): void => {
    if (compiled !== undefined) setTimeout(() => void keep(compiled()), KEEP_MS).unref()
  }
  if (call.kind !== 'run') return call.kind === 'nothing' ? 0 : program.answer(call)
  for (const note of call.notes) say(note)
  return program.run(call.args, { launcher, thread, here, unanswered, askable, onLive })
}
void begin().then(exit)

/**
 * The second process of a background mount. It runs the same program with the same arguments and
 * signals its parent when the mount is live. Only tsoverlay.sh and daemon.ts start it.
 */

import { exit } from 'node:process'

import { startEarly, type UnionThread } from '../server/thread.js'
import { keep } from '../sys/code-cache.js'
import { takeInvocation } from './invocation.js'
import { closeForeignDescriptors } from './descriptors.js'
import { ExitCode } from './exit-codes.js'
import { holdLockFile, takeParentPid, takeLockFile, takeUnanswered } from './background.js'
import { loadProgram } from './load-program.js'
import { say } from './say.js'
import { workingDirectory } from './working-directory.js'

const lockFile = takeLockFile()
closeForeignDescriptors(lockFile === undefined ? [] : [lockFile.fd])
const releaseLock = holdLockFile(lockFile)
const cwd = workingDirectory()
const invocation = takeInvocation()
const parent = takeParentPid()
const unanswered = takeUnanswered()
// The union's thread loads its code while the main thread parses the command line.
const startThread = (): UnionThread => {
  try {
    return startEarly()
  } catch (error) {
    say(`tsoverlay: ${error instanceof Error ? error.message : String(error)}`)
    exit(ExitCode.FAILED)
  }
}
const thread = startThread()

/**
 * The delay after which the program's compiled code is cached once the mount is live, in
 * milliseconds.
 */
const CACHE_DELAY_MS = 1000

const begin = async (): Promise<number> => {
  const { exports: program, compiled } = loadProgram()
  const onLive = (): void => {
    if (compiled !== undefined) setTimeout(() => void keep(compiled()), CACHE_DELAY_MS).unref()
  }
  if (invocation.kind !== 'run')
    return invocation.kind === 'nothing' ? 0 : program.answer(invocation)
  for (const note of invocation.notes) say(note)
  return program.run(invocation.args, { parent, thread, cwd, unanswered, releaseLock, onLive })
}
void begin().then(exit)

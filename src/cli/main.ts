#!/usr/bin/env node
/**
 * The `tsoverlay` program for the invocations that tsoverlay.sh does not handle itself. A
 * background mount is handed to a second process before anything else is loaded, and this process
 * only waits for it (daemon.ts). Every other command runs in this process.
 */

import { exit } from 'node:process'

import { takeInvocation } from './invocation.js'

/**
 * Whether this is `mount` without `-f`, `remount` or `--help`. If unsure it returns false, because
 * program.ts parses the command line completely.
 */
const isBackgroundMount = ([command, ...rest]: readonly string[]): boolean =>
  command === 'mount' &&
  !rest.some(
    arg =>
      /^-[a-zA-Z]*[fh]/.test(arg) ||
      arg.startsWith('--fore') ||
      arg === '--help' ||
      arg.includes('remount'),
  )

const start = async (args: readonly string[]): Promise<number> => {
  if (isBackgroundMount(args)) {
    const { startInBackground } = await import('./daemon.js')
    return startInBackground(args)
  }
  const { loadProgram } = await import('./load-program.js')
  return loadProgram().exports.run(args)
}

const begin = async (): Promise<void> => {
  const invocation = takeInvocation()
  if (invocation.kind === 'run') {
    if (invocation.notes.length > 0) {
      const { say } = await import('./say.js')
      for (const note of invocation.notes) say(note)
    }
    exit(await start(invocation.args))
  } else if (invocation.kind !== 'nothing') {
    const { loadProgram } = await import('./load-program.js')
    exit(loadProgram().exports.answer(invocation))
  }
}

void begin()

#!/usr/bin/env node
/**
 * The `tsoverlay` program, where tsoverlay.sh does not know what to do by itself. A mount in the
 * background is handed to a second process at once, before anything else is loaded: this one only
 * waits for it (daemon.ts). Everything else happens here.
 */

import { exit } from 'node:process'

import { takeCall } from './invocation.js'

/**
 * `mount` without `-f`, no remount, and no question for help. In doubt false: program.ts looks
 * properly.
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
  const call = takeCall()
  if (call.kind === 'run') {
    if (call.notes.length > 0) {
      const { say } = await import('./say.js')
      for (const note of call.notes) say(note)
    }
    exit(await start(call.args))
  } else if (call.kind !== 'nothing') {
    const { loadProgram } = await import('./load-program.js')
    exit(loadProgram().exports.answer(call))
  }
}

void begin()

/** Runs the commands. */

import { readFileSync } from 'node:fs'

import { CommanderError } from 'commander'

import { isKoffiMissing } from '../sys/koffi.js'
import { aliasVersion, type Invocation } from '../config/compat.js'
import { ExitCode } from './exit-codes.js'
import { createProgram } from './commands/create-program.js'
import { say } from './say.js'
import type { Background } from './serve.js'

const version = (): string => {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return /"version": "([^"]+)"/.exec(text)?.[1] ?? 'unknown'
}

/**
 * Handles an invocation without a command: it prints the version or an error.
 * @returns the exit status
 */
export const answer = (invocation: Exclude<Invocation, { kind: 'run' | 'nothing' }>): number => {
  if (invocation.kind === 'version') {
    console.log(aliasVersion(version()))
    return ExitCode.OK
  }
  say(`tsoverlay: ${invocation.message}`)
  say('(see tsoverlay --help)')
  return ExitCode.USAGE
}

/**
 * Runs the program.
 * @param args without node and the script
 * @param background the context of a background server
 * @returns the exit status, after the command has finished
 */
export const run = async (args: readonly string[], background?: Background): Promise<number> => {
  let status: number = ExitCode.OK
  const program = createProgram(version(), {
    mount: async command => {
      const { serve } = await import('./serve.js')
      const { isRemount, remount } = await import('./commands/remount.js')
      if (isRemount(command.options)) {
        remount(command.mountpoint, command.options, command.onUnknown)
      } else if (background === undefined && !command.foreground) {
        const { startInBackground } = await import('./daemon.js')
        status = await startInBackground(args)
      } else {
        status = await serve(command, background)
      }
    },
    umount: async (mountpoints, { lazy, all }) => {
      const { unmountEach, unmountAll } = await import('./commands/umount-several.js')
      status = await (all ? unmountAll(lazy) : unmountEach(mountpoints, lazy))
    },
    ls: async json => {
      const { showMounts } = await import('./commands/ls.js')
      await showMounts(json)
    },
    stats: async (mountpoint, form) => {
      const { showStats } = await import('./commands/stats.js')
      await showStats(mountpoint, form)
    },
    which: async (file, json) => {
      const { showWhich } = await import('./commands/which.js')
      if (!(await showWhich(file, json))) status = ExitCode.FAILED
    },
    top: async options => {
      const { showTop } = await import('./commands/top.js')
      status = await showTop(options)
    },
    server: {
      start: async linger => {
        const { startServer } = await import('./commands/server.js')
        const { startInBackground } = await import('./daemon.js')
        status = await (background === undefined
          ? startInBackground(args)
          : startServer(linger, background))
      },
      stop: async () => {
        const { stopServer } = await import('./commands/server.js')
        status = await stopServer()
      },
      status: async json => {
        const { showServer } = await import('./commands/server.js')
        status = showServer(json)
      },
    },
  })

  try {
    await program.parseAsync(args, { from: 'user' })
    return status
  } catch (error) {
    if (error instanceof CommanderError) {
      return error.exitCode === 0 ? ExitCode.OK : ExitCode.USAGE
    }
    const { MountError } = await import('../errors.js')
    if (error instanceof MountError) {
      say(`tsoverlay: ${error.message}`)
      return error.code === 'EINVAL' && error.path === undefined ? ExitCode.USAGE : ExitCode.FAILED
    }
    say(`tsoverlay: ${faultOf(error)}`)
    return ExitCode.INTERNAL
  }
}

/** An error of the program is reported with its stack, an error of the installation without. */
const faultOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  return isKoffiMissing(error) ? error.message : (error.stack ?? error.message)
}

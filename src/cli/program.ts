/** The commands, their options and their help. */

import { readFileSync } from 'node:fs'

import { Argument, Command, CommanderError } from 'commander'

import { isKoffiMissing } from '../sys/koffi.js'
import { aliasVersion, type Call } from '../config/compat.js'
import { ExitCode } from './exit-codes.js'
import { addInspectCommands } from './commands/inspect-commands.js'
import { addMountCommand } from './commands/mount.js'
import { say } from './say.js'
import type { Background } from './serve.js'
import { addServerCommand } from './commands/server-command.js'

const version = (): string => {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return /"version": "([^"]+)"/.exec(text)?.[1] ?? 'unknown'
}

/**
 * Handles an invocation without a command: it prints the version or an error.
 * @returns the exit status
 */
export const answer = (invocation: Exclude<Call, { kind: 'run' | 'nothing' }>): number => {
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
  const program = new Command('tsoverlay')
    .description("A union file system with kernel overlayfs' semantics and formats, over FUSE.")
    .version(`tsoverlay ${version()}`, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .showHelpAfterError('(see tsoverlay --help)')
    .configureOutput({ writeErr: text => say(text.trimEnd()) })
    .exitOverride()
    .addHelpText(
      'after',
      `
Examples:
  tsoverlay mount -o lowerdir=/a:/b,upperdir=/u,workdir=/w /mnt/m
  tsoverlay umount /mnt/m
  tsoverlay mount --help

Without a command, as fuse-overlayfs and mount(8) use it (the same as mount):
  tsoverlay [-f] [-d | --debug] -o OPTIONS [SOURCE] MOUNTPOINT
  mount -t fuse.tsoverlay none /mnt/m -o lowerdir=/a:/b,upperdir=/u,workdir=/w`,
    )

  addMountCommand(program, async command => {
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
  })

  program
    .command('umount')
    .alias('unmount')
    .description('Unmount unions, and wait until their layers are closed.')
    .addArgument(new Argument('[mountpoint...]', 'the directories that they are mounted on'))
    .option('-l, --lazy', 'also detach busy mounts; open files keep working', false)
    .option(
      '-a, --all',
      'all mounts that `tsoverlay ls` shows; print the name of each unmounted one',
      false,
    )
    .addHelpText(
      'after',
      `
If a mount can't be unmounted the command continues with the others and returns the highest exit status.

Examples:
  tsoverlay umount /mnt/m
  tsoverlay umount --lazy /mnt/m
  tsoverlay umount --all`,
    )
    .action(async (mountpoints: string[], options: { lazy: boolean; all: boolean }, command) => {
      if (options.all !== (mountpoints.length === 0))
        command.error(
          options.all
            ? 'error: --all takes no mountpoints'
            : "error: missing required argument 'mountpoint', or --all",
        )
      const { unmountEach, unmountAll } = await import('./commands/umount-several.js')
      status = await (options.all
        ? unmountAll(options.lazy)
        : unmountEach(mountpoints, options.lazy))
    })

  addInspectCommands(program, {
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
  })

  addServerCommand(program, {
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

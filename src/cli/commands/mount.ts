/** Declares the command `mount` and parses its command line. */

import { Argument, Command, InvalidArgumentError, Option } from 'commander'

import { logLevels, type LogLevel } from '../../log.js'
import { mountOptionsHelp } from '../../config/help.js'
import { transports } from '../../config/table.js'
import type { Transport } from '../../config/types.js'
import type { MountCommand } from '../mount-request.js'

interface MountFlags {
  options: string[]
  foreground: boolean
  sloppy: boolean
  lenient: boolean
  logLevel?: LogLevel
  logFile?: string
  transport: Transport
  ownServer: boolean
  linger: number
}

/** In seconds. */
export const DEFAULT_LINGER = 60

export const parseLinger = (text: string): number => {
  if (text === 'infinity') return Infinity
  // Node's timers take at most 2^31 - 1 milliseconds.
  const seconds = Number(text)
  if (text !== '' && seconds >= 0 && seconds <= 2_000_000) return seconds
  throw new InvalidArgumentError('Write a number of seconds up to 2000000, or infinity.')
}

/** Receives the parsed command line. */
export type MountAction = (command: MountCommand) => void | Promise<void>

export const addMountCommand = (program: Command, act: MountAction): void => {
  program
    .command('mount')
    .description('Mount a union and serve it in the background; return when the mount is live.')
    .addArgument(new Argument('<mountpoint>', 'the directory to mount on'))
    .addOption(
      new Option('-o, --options <list>', 'mount options; may be given more than once')
        .argParser((list: string, before: string[]) => [...before, list])
        .default([], 'none'),
    )
    .option('-f, --foreground', 'serve in this process; end when the mount ends', false)
    .option('-s, --sloppy', 'accept unknown mount options with a warning', false)
    // config/compat.ts adds this option if the program runs as mount(8)'s helper or as
    // fuse-overlayfs.
    .addOption(
      new Option('--lenient', 'treat unknown options as fuse-overlayfs does')
        .default(false)
        .hideHelp(),
    )
    .addOption(
      new Option(
        '--log-level <level>',
        'lowest level to log (default info; for the system log: warn)',
      ).choices(logLevels),
    )
    .option(
      '--log-file <file>',
      'append log lines (JSON) to this file; the default of a background server is the system log',
    )
    .addOption(
      new Option('--transport <kind>', 'how to reach the kernel; fuse-native uses that npm package')
        .choices(transports)
        .default('kernel'),
    )
    .option('--own-server', 'serve this mount in a process of its own', false)
    .addOption(
      new Option(
        '--linger <seconds>',
        'how long a server started by this command stays without a mount',
      )
        .argParser(parseLinger)
        .default(DEFAULT_LINGER),
    )
    .addHelpText(
      'after',
      `
Mount options (-o), separated by commas; write \\: \\, \\\\ for the characters themselves:
${mountOptionsHelp()}

Examples:
  tsoverlay mount -o lowerdir=/a:/b,upperdir=/u,workdir=/w /mnt/m
  tsoverlay mount -o lowerdir=/a:/b /mnt/m                      read-only
  tsoverlay mount -o lowerdir=/a -o upperdir=/u,workdir=/w -o nodev,noatime /mnt/m
  tsoverlay mount -f --log-level debug -o lowerdir=/a,io=cached /mnt/m`,
    )
    .action((mountpoint: string, flags: MountFlags) =>
      act({
        ...flags,
        mountpoint,
        logLevel: flags.logLevel,
        logFile: flags.logFile,
        onUnknown: flags.sloppy ? 'pass' : flags.lenient ? 'tell' : 'refuse',
      }),
    )
}

/**
 * Parses a command line of `mount` without output.
 * @param args without node and the script
 * @returns undefined if it is another command, invalid, or asks for help or the version
 */
export const readMountCommand = (args: readonly string[]): MountCommand | undefined => {
  let read: MountCommand | undefined
  const program = new Command('tsoverlay')
    .configureOutput({ writeErr: () => {}, writeOut: () => {} })
    .exitOverride()
  addMountCommand(program, command => void (read = command))
  try {
    program.parse(args, { from: 'user' })
  } catch {
    return undefined
  }
  return read
}

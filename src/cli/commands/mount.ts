/** Declares the command `mount` and parses its command line. */

import { Argument, Command, InvalidArgumentError, Option } from 'commander'

import { logLevels, type LogLevel } from '../../log.js'
import type { Transport } from '../../server/mount.js'
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

/** @param act receives the parsed command line */
export const addMountCommand = (
  program: Command,
  act: (command: MountCommand) => void | Promise<void>,
): void => {
  program
    .command('mount')
    .description('Mount a union; return when it is live, and serve it in the background.')
    .addArgument(new Argument('<mountpoint>', 'the directory to mount on'))
    .addOption(
      new Option('-o, --options <list>', 'mount options; several -o add up')
        .argParser((list: string, before: string[]) => [...before, list])
        .default([], 'none'),
    )
    .option('-f, --foreground', 'serve in this process; end when the mount ends', false)
    .option('-s, --sloppy', 'let mount options pass that are not known, with a line', false)
    // config/compat.ts adds this option if the program runs as mount(8)'s helper or as
    // fuse-overlayfs.
    .addOption(new Option('--lenient', 'as fuse-overlayfs treats them').default(false).hideHelp())
    .addOption(
      new Option(
        '--log-level <level>',
        "the least to log (info; to the system's log: warn)",
      ).choices(logLevels),
    )
    .option(
      '--log-file <file>',
      "append log lines (JSON) to this file; else a server in the background tells the system's log",
    )
    .addOption(
      new Option('--transport <kind>', 'the way to the kernel; fuse-native: by that npm package')
        .choices(['kernel', 'fuse-native'])
        .default('kernel'),
    )
    .option('--own-server', 'a process that serves nothing else', false)
    .addOption(
      new Option('--linger <seconds>', 'how long a server that this starts stays without a mount')
        .argParser(parseLinger)
        .default(DEFAULT_LINGER),
    )
    .addHelpText(
      'after',
      `
Mount options (-o), separated by commas; \\: \\, \\\\ stand for the characters themselves:
  lowerdir=A:B:C         read-only layers, the top one first (required)
  upperdir=DIR           the writable layer; without it the union is read-only
  workdir=DIR            an empty directory on the file system of upperdir
  redirect_dir=MODE      on, off, follow, nofollow: renames of lower directories (off)
  index=on|off           keep hard links whole over copy-up (on)
  userxattr              user.overlay.* attributes instead of trusted.overlay.*
  whiteout=FORM          auto, char, xattr, wh: how deletions are written (auto)
  volatile               never sync; the upper layer is lost by a crash
  fsync=0|1              0: never sync, and leave no mark of that (1)
  io=MODE                auto, passthrough, cached: how data travels (auto)
  writeback=0|1          0: written data goes to the layer at once, in io=cached (1)
  noopen                 open and close files without a message, in io=cached
  max_write=BYTES        data in one write request, at most
  timeout=SECONDS        how long the kernel may keep names and attributes
  noxattrs=0|1           1: no extended attributes are shown or taken (0)
  noacl                  no POSIX ACLs are shown, taken or enforced
  static_nlink           every directory shows one link
  allow_other            let other users in (default for root)
  allow_root             as root: let nobody else in
  fsname=NAME            the source shown in /proc/mounts
  subtype=NAME           the type shown there, after "fuse."
  own_server             as --own-server, for fstab
  log_level=LEVEL, log_file=FILE   as --log-level and --log-file, for fstab
  remount                change the flags (ro, rw, nosuid, ...) of the mount that is there
  ro, nosuid, nodev, noexec, noatime, relatime, sync, ... and their opposites

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

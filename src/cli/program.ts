/** The commands, their options and their help. */

import { readFileSync } from 'node:fs'

import { Argument, Command, CommanderError, Option } from 'commander'

import type { LogLevel } from '../log.js'
import type { Transport } from '../mount.js'
import { aliasVersion, type Call } from './drop-in.js'
import { ExitCode } from './exit-codes.js'
import { logLevels } from './logging.js'
import type { Background, MountCommand } from './serve.js'
import { say } from './say.js'

const version = (): string => {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return /"version": "([^"]+)"/.exec(text)?.[1] ?? 'unknown'
}

/** What needs no command. Returns the exit status. */
export const answer = (call: Exclude<Call, { kind: 'run' | 'nothing' }>): number => {
  if (call.kind === 'version') {
    console.log(aliasVersion(version()))
    return ExitCode.OK
  }
  say(`tsoverlay: ${call.message}`)
  say('(see tsoverlay --help)')
  return ExitCode.USAGE
}

/**
 * Runs the program.
 * @param args without node and the script
 * @param background in a server in the background: what it was given
 * @returns the exit status, when all is done
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

Without a command, as fuse-overlayfs and as mount(8) calls it, which is the same as mount:
  tsoverlay [-f] [-d | --debug] -o OPTIONS [SOURCE] MOUNTPOINT
  mount -t fuse.tsoverlay none /mnt/m -o lowerdir=/a:/b,upperdir=/u,workdir=/w`,
    )

  program
    .command('mount')
    .description('Mount a union; return when it is live, and serve it in the background.')
    .addArgument(new Argument('<mountpoint>', 'the folder to mount on'))
    .addOption(
      new Option('-o, --options <list>', 'mount options; several -o add up')
        .argParser((list: string, before: string[]) => [...before, list])
        .default([], 'none'),
    )
    .option('-f, --foreground', 'serve in this process; end when the mount ends', false)
    .addOption(
      new Option('--log-level <level>', 'the least to log').choices(logLevels).default('info'),
    )
    .option('--log-file <file>', 'append log lines (JSON) to this file')
    .addOption(
      new Option('--transport <kind>', 'the way to the kernel; fuse-native: by that npm package')
        .choices(['kernel', 'fuse-native'])
        .default('kernel'),
    )
    .addHelpText(
      'after',
      `
Mount options (-o), separated by commas; \\: \\, \\\\ stand for the characters themselves:
  lowerdir=A:B:C         read-only layers, the top one first (required)
  upperdir=DIR           the writable layer; without it the union is read-only
  workdir=DIR            an empty folder on the file system of upperdir
  redirect_dir=MODE      on, off, follow, nofollow: renames of lower folders (off)
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
  static_nlink           every folder shows one link
  allow_other            let other users in (default for root)
  allow_root             as root: let nobody else in
  fsname=NAME            the source shown in /proc/mounts
  subtype=NAME           the type shown there, after "fuse."
  ro, nosuid, nodev, noexec, noatime, relatime, sync, ... and their opposites

Examples:
  tsoverlay mount -o lowerdir=/a:/b,upperdir=/u,workdir=/w /mnt/m
  tsoverlay mount -o lowerdir=/a:/b /mnt/m                      read-only
  tsoverlay mount -o lowerdir=/a -o upperdir=/u,workdir=/w -o nodev,noatime /mnt/m
  tsoverlay mount -f --log-level debug -o lowerdir=/a,io=cached /mnt/m`,
    )
    .action(async (mountpoint: string, options: MountFlags) => {
      const { serve } = await import('./serve.js')
      const command: MountCommand = { ...options, mountpoint, logFile: options.logFile }
      if (background === undefined && !options.foreground) {
        const { startInBackground } = await import('./daemon.js')
        status = await startInBackground(args)
      } else {
        status = await serve(command, background)
      }
    })

  program
    .command('umount')
    .alias('unmount')
    .description('Unmount a union, and wait until its server has ended.')
    .addArgument(new Argument('<mountpoint>', 'the folder it is mounted on'))
    .option('-l, --lazy', 'detach it although it is busy; open files go on working', false)
    .addHelpText(
      'after',
      `
Examples:
  tsoverlay umount /mnt/m
  tsoverlay umount --lazy /mnt/m`,
    )
    .action(async (mountpoint: string, options: { lazy: boolean }) => {
      const { unmount } = await import('./umount.js')
      await unmount(mountpoint, options.lazy)
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
      return ExitCode.FAILED
    }
    say(`tsoverlay: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
    return ExitCode.INTERNAL
  }
}

interface MountFlags {
  options: string[]
  foreground: boolean
  logLevel: LogLevel
  logFile?: string
  transport: Transport
}

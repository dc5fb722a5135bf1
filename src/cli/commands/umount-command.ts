/** Declares the command `umount`. */

import { Argument, type Command } from 'commander'

interface UmountFlags {
  lazy: boolean
  all: boolean
}

/** @param mountpoints none with `all` */
export type UmountAction = (mountpoints: readonly string[], flags: UmountFlags) => Promise<void>

export const addUmountCommand = (program: Command, act: UmountAction): void => {
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
    .action(async (mountpoints: string[], options: UmountFlags, command: Command) => {
      if (options.all !== (mountpoints.length === 0))
        command.error(
          options.all
            ? 'error: --all takes no mountpoints'
            : "error: missing required argument 'mountpoint', or --all",
        )
      await act(mountpoints, options)
    })
}

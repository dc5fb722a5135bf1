/**
 * Declares the program: its commands, their options and their help. The man pages and the shell
 * completions are generated from commander's objects (scripts/options.mjs).
 */

import { Command } from 'commander'

import { say } from '../say.js'
import { addInspectCommands, type InspectActions } from './inspect-commands.js'
import { addMountCommand, type MountAction } from './mount.js'
import { addServerCommand, type ServerActions } from './server-command.js'
import { addUmountCommand, type UmountAction } from './umount-command.js'

export interface Actions extends InspectActions {
  mount: MountAction
  umount: UmountAction
  server: ServerActions
}

/** @param actions what the commands do */
export const createProgram = (version: string, actions: Actions): Command => {
  const program = new Command('tsoverlay')
    .description("A union file system with kernel overlayfs' semantics and formats, over FUSE.")
    .version(`tsoverlay ${version}`, '-V, --version', 'print the version')
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

  addMountCommand(program, actions.mount)
  addUmountCommand(program, actions.umount)
  addInspectCommands(program, actions)
  addServerCommand(program, actions.server)
  return program
}

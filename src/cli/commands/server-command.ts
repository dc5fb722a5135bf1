/** Declares the command `server`: its arguments, options and help. */

import { Option, type Command } from 'commander'

import { parseLinger } from './mount.js'

export interface ServerActions {
  /** @param linger in seconds */
  start(linger: number): Promise<void>
  stop(): Promise<void>
  status(json: boolean): Promise<void>
}

export const addServerCommand = (program: Command, actions: ServerActions): void => {
  const server = program
    .command('server')
    .description('Control the resident server, which serves the mounts of one user.')
    .addHelpText(
      'after',
      `
The resident server of the same user serves a background mount, if it runs and accepts the mount. Otherwise the mount starts a server,
which stays for further mounts (mount --linger).

Examples:
  tsoverlay server start
  tsoverlay server status --json
  tsoverlay server stop`,
    )
  server
    .command('start')
    .description('Start a server without a mount, and return when it accepts requests.')
    .addOption(
      new Option('--linger <seconds>', 'how long the server stays without a mount')
        .argParser(parseLinger)
        .default(Infinity, 'until it is stopped'),
    )
    .action((flags: { linger: number }) => actions.start(flags.linger))
  server
    .command('stop')
    .description('Unmount everything that the server serves, and wait until it has ended.')
    .action(() => actions.stop())
  server
    .command('status')
    .description(
      'Print whether the server runs and its mounts; the exit status is 3 if it does not run.',
    )
    .option('--json', 'as JSON', false)
    .action((flags: { json: boolean }) => actions.status(flags.json))
}

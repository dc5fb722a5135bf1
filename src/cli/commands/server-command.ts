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
    .description('The resident server, which serves the mounts of one user.')
    .addHelpText(
      'after',
      `
A mount in the background is served by the resident server of the same user, where there is one and it may; else it starts a server, which
stays for further mounts (mount --linger).

Examples:
  tsoverlay server start
  tsoverlay server status --json
  tsoverlay server stop`,
    )
  server
    .command('start')
    .description('Start one that has no mount yet, and return when it can be asked for mounts.')
    .addOption(
      new Option('--linger <seconds>', 'how long it stays without a mount')
        .argParser(parseLinger)
        .default(Infinity, 'until it is stopped'),
    )
    .action((flags: { linger: number }) => actions.start(flags.linger))
  server
    .command('stop')
    .description('Have it unmount all that it serves, and wait for its end.')
    .action(() => actions.stop())
  server
    .command('status')
    .description(
      'Tell whether it runs, and what it serves; the exit status is 3 where it does not.',
    )
    .option('--json', 'as JSON', false)
    .action((flags: { json: boolean }) => actions.status(flags.json))
}

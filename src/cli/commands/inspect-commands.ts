/** Declares the commands that inspect mounts: their arguments, options and help. */

import { Argument, InvalidArgumentError, Option, type Command } from 'commander'

import type { StatsForm } from './stats.js'
import type { TopOptions } from './top.js'

export interface InspectActions {
  ls(json: boolean): Promise<void>
  stats(mountpoint: string, form: StatsForm): Promise<void>
  which(file: string, json: boolean): Promise<void>
  top(options: TopOptions): Promise<void>
}

const LEAST_DELAY = 0.1
/** The longest delay that a Node timer accepts, in seconds. */
const MOST_DELAY = 2_147_483

const readDelay = (text: string): number => {
  const seconds = /^(\d+\.?\d*|\.\d+)$/.test(text) ? Number(text) : Number.NaN
  if (seconds >= LEAST_DELAY && seconds <= MOST_DELAY) return seconds
  throw new InvalidArgumentError(`It is a number of seconds from ${LEAST_DELAY} to ${MOST_DELAY}.`)
}

export const addInspectCommands = (program: Command, actions: InspectActions): void => {
  program
    .command('ls')
    .description('List the unions in this mount namespace and their servers.')
    .addOption(new Option('--json', 'as JSON, an array').default(false))
    .addHelpText(
      'after',
      `
An unknown value is "-", and null in JSON: the server of another user can't be inspected, and a stopped server does not answer.
MEMORY is the server's memory (PSS), which all its MOUNTS share. White space and backslashes in paths are escaped as in
/proc/self/mountinfo (\\040), but not in JSON.

Examples:
  tsoverlay ls
  tsoverlay ls --json`,
    )
    .action((flags: { json: boolean }) => actions.ls(flags.json))
  program
    .command('stats')
    .description('Print the counters of a mount.')
    .addArgument(new Argument('<mountpoint>', 'the directory that it is mounted on'))
    .addOption(new Option('--json', 'as JSON').default(false))
    .addOption(
      new Option('--prometheus', "in Prometheus' text format").default(false).conflicts('json'),
    )
    .addHelpText(
      'after',
      `
The counters are requests and errors by operation; errors include answers such as "no such attribute". Others are requests that wait
for a job, files and directories that the server has nodes for, open files, copy-ups, and the bytes of the copied files. The
duration of requests is not measured, because reading a clock for each request would slow them down.

Examples:
  tsoverlay stats /mnt/m
  tsoverlay stats --json /mnt/m
  tsoverlay stats --prometheus /mnt/m`,
    )
    .action((mountpoint: string, flags: { json: boolean; prometheus: boolean }) =>
      actions.stats(mountpoint, flags.json ? 'json' : flags.prometheus ? 'prometheus' : 'text'),
    )
  program
    .command('which')
    .description('Print the layer and the path that serve a file of a union, and the reason.')
    .addArgument(new Argument('<file>', 'a path below the mountpoint; it need not exist'))
    .addOption(new Option('--json', 'as JSON').default(false))
    .addHelpText(
      'after',
      `
The output shows what each layer has under the name: the file that serves it, a directory that is merged with others, or a whiteout. It
also shows where the data of a metacopy file is, and the name of a redirected directory in the lower layers. If the name does not exist
the output shows why, or describes the missing parent directory; the exit status is then 32. The command asks the server, so the server
must belong to the same user, and must not use the transport fuse-native.

Examples:
  tsoverlay which /mnt/m/file
  tsoverlay which --json /mnt/m`,
    )
    .action((file: string, flags: { json: boolean }) => actions.which(file, flags.json))
  program
    .command('top')
    .description('Show the mounted unions and their request rates, and refresh the display.')
    .addOption(
      new Option('-d, --delay <seconds>', 'time between two updates')
        .argParser(readDelay)
        .default(2),
    )
    .addOption(
      new Option('--once', 'print the values after one delay, and end; needs no terminal').default(
        false,
      ),
    )
    .addHelpText(
      'after',
      `
Keys select the sort order: r requests per second, t requests in total, m memory, a age, p path. The space bar updates at once, q ends
the program. MEMORY is the server's memory (PSS), which all its MOUNTS share.

Examples:
  tsoverlay top
  tsoverlay top -d 5
  tsoverlay top --once`,
    )
    .action((flags: TopOptions) => actions.top(flags))
}

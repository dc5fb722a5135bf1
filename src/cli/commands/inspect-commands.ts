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
    .description('List the unions that are mounted here, and what serves them.')
    .addOption(new Option('--json', 'as JSON, an array').default(false))
    .addHelpText(
      'after',
      `
Here is this mount namespace. What can't be told is "-", and null in JSON: another user's server is not looked into, and one that is
stopped does not answer. MEMORY is that of the server (PSS), which all its MOUNTS share. White space and backslashes in
paths are written as in /proc/self/mountinfo (\\040); as JSON they are themselves.

Examples:
  tsoverlay ls
  tsoverlay ls --json`,
    )
    .action((flags: { json: boolean }) => actions.ls(flags.json))
  program
    .command('stats')
    .description('Tell what the server of a mount has counted since it was mounted.')
    .addArgument(new Argument('<mountpoint>', 'the directory it is mounted on'))
    .addOption(new Option('--json', 'as JSON').default(false))
    .addOption(
      new Option('--prometheus', "in Prometheus' text format").default(false).conflicts('json'),
    )
    .addHelpText(
      'after',
      `
Counted are requests and errors, by operation; errors are answers such as "no such attribute", too. Besides: requests that wait for a
job, files and directories that the server knows, open files, copy-ups and the bytes of the files that were copied up. How long
requests take is not measured: a clock that is read for each would slow them down.

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
    .description('Tell which layer serves a file of a union, from which path, and why.')
    .addArgument(new Argument('<file>', 'a name below the mountpoint; it need not be there'))
    .addOption(new Option('--json', 'as JSON').default(false))
    .addHelpText(
      'after',
      `
It tells what each layer has under the name: the file that serves it, a directory that is merged with others, a whiteout. Where the data of a
file is elsewhere (metacopy), it tells where, and where a directory has another name in the layers below (redirect). Of a name that is not
there it tells why; where a directory on the way is missing already, it tells about that. The exit status is then 32. The server is
asked, so it has to be one's own, and can't be one of the transport fuse-native.

Examples:
  tsoverlay which /mnt/m/file
  tsoverlay which --json /mnt/m`,
    )
    .action((file: string, flags: { json: boolean }) => actions.which(file, flags.json))
  program
    .command('top')
    .description('Show how busy the unions are that are mounted here, again and again.')
    .addOption(
      new Option('-d, --delay <seconds>', 'how long from one look to the next')
        .argParser(readDelay)
        .default(2),
    )
    .addOption(
      new Option('--once', 'print it after one such time, and end; needs no terminal').default(
        false,
      ),
    )
    .addHelpText(
      'after',
      `
Keys choose what the lines are sorted by: r requests per second, t requests in total, m memory, a age, p path. The space bar looks at once,
q ends it. MEMORY is that of the server (PSS), which all its MOUNTS share.

Examples:
  tsoverlay top
  tsoverlay top -d 5
  tsoverlay top --once`,
    )
    .action((flags: TopOptions) => actions.top(flags))
}

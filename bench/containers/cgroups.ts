/** Control groups for commands, where they can be made. */

import * as fs from 'node:fs'

/** Where hierarchies of control groups are mounted, version 2 first. */
const hierarchies = (): string[] =>
  fs
    .readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map(line => ({ path: line.split(' ')[4] ?? '', type: / - (cgroup2?) /.exec(line)?.[1] }))
    .filter(({ type }) => type !== undefined)
    .toSorted((a, b) => Number(b.type === 'cgroup2') - Number(a.type === 'cgroup2'))
    .map(({ path }) => path)

/** Removes a group in all hierarchies, with those in it. Processes are in none of them any more. */
export const removeCgroups = (name: string): void => {
  const remove = (directory: string): void => {
    for (const entry of fs.readdirSync(directory, { withFileTypes: true }))
      if (entry.isDirectory()) remove(`${directory}/${entry.name}`)
    fs.rmdirSync(directory)
  }
  for (const top of hierarchies()) {
    try {
      remove(`${top}/${name}`)
    } catch {
      // There is none here, or it is busy for as long as a process takes to end.
    }
  }
}

/**
 * Makes groups for commands.
 * @returns how a command is put into one of its own; null: none can be made
 */
export const cgroupMaker = (name: string): ((words: readonly string[]) => string[]) | null => {
  for (const top of hierarchies()) {
    let count = 0
    const directoryOf = (n: number): string => `${top}/${name}/command${n}`
    try {
      fs.mkdirSync(directoryOf(0), { recursive: true })
      // A hierarchy may take no processes, such as a cpuset without processors.
      fs.accessSync(`${directoryOf(0)}/cgroup.procs`, fs.constants.W_OK)
      if (fs.existsSync(`${top}/cpuset.cpus`)) continue
    } catch {
      continue
    }
    return words => {
      const directory = directoryOf(++count)
      fs.mkdirSync(directory, { recursive: true })
      const enter = 'echo $$ >"$1" && shift && exec "$@"'
      return ['sh', '-c', enter, 'sh', `${directory}/cgroup.procs`, ...words]
    }
  }
  return null
}

/** Control groups for commands, if they can be created. */

import * as fs from 'node:fs'

/** The mountpoints of the cgroup hierarchies, version 2 first. */
const hierarchies = (): string[] =>
  fs
    .readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map(line => ({ path: line.split(' ')[4] ?? '', type: / - (cgroup2?) /.exec(line)?.[1] }))
    .filter(({ type }) => type !== undefined)
    .toSorted((a, b) => Number(b.type === 'cgroup2') - Number(a.type === 'cgroup2'))
    .map(({ path }) => path)

/** Removes a group and its subgroups in all hierarchies. No process may be left in them. */
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
      // The group does not exist, or it is busy for the time that a process takes to end.
    }
  }
}

/**
 * Creates groups for commands.
 * @returns a function that puts a command into a group of its own; null if no group can be created
 */
export const cgroupMaker = (name: string): ((words: readonly string[]) => string[]) | null => {
  for (const top of hierarchies()) {
    let count = 0
    const directoryOf = (n: number): string => `${top}/${name}/command${n}`
    try {
      fs.mkdirSync(directoryOf(0), { recursive: true })
      // A hierarchy may accept no processes, for example a cpuset without CPUs.
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

/**
 * Moves the server to a cgroup of its own. Otherwise a server that a command of a session or
 * container started would end with the scope of that session or container. On request systemd
 * creates a scope for a process.
 */

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'

import { readProc } from './processes.js'

const TIMEOUT_MS = 2000
const POLL_MS = 5

const manager = 'org.freedesktop.systemd1'

/** The arguments of busctl(1): Manager.StartTransientUnit(name, mode, properties, aux). */
export const scopeArguments = (pid: number, user: boolean): string[] => [
  ...(user ? ['--user'] : []),
  '--quiet',
  'call',
  manager,
  `/${manager.replaceAll('.', '/')}`,
  `${manager}.Manager`,
  'StartTransientUnit',
  'ssa(sv)a(sa(sv))',
  `tsoverlay-server-${pid}.scope`,
  'fail',
  '3',
  'PIDs',
  'au',
  '1',
  String(pid),
  'Description',
  's',
  'server of tsoverlay mounts',
  'CollectMode',
  's',
  'inactive-or-failed',
  '0',
]

/**
 * Moves this process into a scope of its own.
 * @param systemdPath a path that exists if systemd runs
 * @returns whether it has been moved
 */
export const moveToScope = async (systemdPath = '/run/systemd/system'): Promise<boolean> => {
  if (!existsSync(systemdPath)) return false
  const previous = readProc('self', 'cgroup')
  if (!(await run('busctl', scopeArguments(process.pid, process.geteuid?.() !== 0)))) return false
  // systemd replies before it has moved the process.
  for (const until = Date.now() + TIMEOUT_MS; Date.now() < until;) {
    if (readProc('self', 'cgroup') !== previous) return true
    await new Promise(done => setTimeout(done, POLL_MS))
  }
  return false
}

const run = (program: string, args: string[]): Promise<boolean> =>
  new Promise(resolve => {
    const child = spawn(program, args, { stdio: 'ignore', cwd: '/', timeout: TIMEOUT_MS })
    child.once('error', () => resolve(false))
    child.once('exit', status => resolve(status === 0))
  })

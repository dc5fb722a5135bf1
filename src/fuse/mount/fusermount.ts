/**
 * Mounts and unmounts with fusermount3, the set-user-id program of libfuse, if this process may not
 * call mount(2) (libfuse: util/fusermount.c, lib/mount.c). The program opens the device, mounts it
 * and passes the descriptor over a socket. The environment variable _FUSE_COMMFD names the socket.
 */

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { accessSync, constants, readFileSync } from 'node:fs'
import { env } from 'node:process'

import { MountError } from '../../errors.js'
import {
  MNT_DETACH,
  MS_DIRSYNC,
  MS_NOATIME,
  MS_NOEXEC,
  MS_NOSYMFOLLOW,
  MS_RDONLY,
  MS_SYNCHRONOUS,
} from '../../sys/constants.js'
import { E } from '../../sys/errno.js'
import { close, setNonblock } from '../../sys/io.js'
import { receiveFd, socketPair } from '../../sys/socket.js'
import type { MountRequest } from './request.js'
import { MAX_IO } from '../../config/tuning.js'

const PROGRAM = 'fusermount3'
const CONF = '/etc/fuse.conf'
/** Searched after the directories of PATH. */
const DIRECTORIES = ['/usr/bin', '/bin', '/usr/local/bin']
/** The socket's descriptor in the program. */
const COMM_FD = 3

/** The program's path, or undefined if it is not installed. */
export const findFusermount = (path = env['PATH'] ?? ''): string | undefined =>
  [...path.split(':').filter(directory => directory.startsWith('/')), ...DIRECTORIES]
    .map(directory => `${directory}/${PROGRAM}`)
    .find(isExecutable)

const isExecutable = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/**
 * Whether the machine allows `allow_other` to ordinary users: /etc/fuse.conf has a line
 * `user_allow_other`. Also true if the file cannot be read; fusermount3 then reports the error.
 */
export const othersAllowed = (conf = CONF): boolean => {
  try {
    return /^user_allow_other\s*$/m.test(readFileSync(conf, 'latin1'))
  } catch (error) {
    return !(error instanceof Error && 'code' in error && error.code === 'ENOENT')
  }
}

/** The error for `allow_other` if the machine does not allow it to ordinary users. */
export const notForOthers = (): MountError =>
  new MountError(
    `allow_other: an ordinary user may not let others in on this machine; have root write user_allow_other into ${CONF}, or leave the option out`,
    { option: 'allow_other', code: 'EPERM' },
  )

/**
 * The mount flags that have a word in its options. It sets nosuid and nodev itself. The server
 * implements the other atime modes.
 */
const WORDS: readonly (readonly [flag: number, word: string])[] = [
  [MS_RDONLY, 'ro'],
  [MS_NOEXEC, 'noexec'],
  [MS_SYNCHRONOUS, 'sync'],
  [MS_DIRSYNC, 'dirsync'],
  [MS_NOATIME, 'noatime'],
  [MS_NOSYMFOLLOW, 'nosymfollow'],
]

const escape = (text: string): string => text.replaceAll(/[\\,]/g, '\\$&')

/** The value of its option `-o`. */
export const fusermountOptions = (request: MountRequest): string => {
  const options = [`fsname=${escape(request.fsname)}`]
  if (request.subtype !== '') options.push(`subtype=${escape(request.subtype)}`)
  options.push('default_permissions', `max_read=${MAX_IO}`)
  if (request.allowOther) options.push('allow_other')
  for (const [flag, word] of WORDS) if ((request.flags & flag) !== 0) options.push(word)
  return options.join(',')
}

/**
 * Mounts and returns the connection, with O_NONBLOCK like `openDevice`.
 * @throws {MountError}
 */
export const mountByHelper = async (request: MountRequest): Promise<number> => {
  const program = findFusermount()
  if (program === undefined) throw mountFailed(request, `${PROGRAM} is gone`)
  const pair = socketPair()
  if (typeof pair === 'number') throw mountFailed(request, `no socket for ${PROGRAM}`)
  const [ours, theirs] = pair
  try {
    let child: ChildProcess
    try {
      child = spawn(program, ['-o', fusermountOptions(request), '--', request.mountpoint], {
        stdio: ['ignore', 'ignore', 'pipe', theirs],
        argv0: PROGRAM,
        env: { ...env, _FUSE_COMMFD: String(COMM_FD) },
        cwd: '/',
      })
    } finally {
      close(theirs)
    }
    const stderr = await outputOf(child)
    const fd = receiveFd(ours)
    if (fd < 0) throw mountFailed(request, stderr)
    setNonblock(fd)
    return fd
  } finally {
    close(ours)
  }
}

/** Resolves with the program's stderr when the program has ended. */
const outputOf = (child: ChildProcess): Promise<string> =>
  new Promise(resolve => {
    let stderr = ''
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    child.once('error', error => resolve(error.message))
    child.once('close', () => resolve(stderr))
  })

const mountFailed = ({ mountpoint }: MountRequest, stderr: string): MountError => {
  const why = stderr.trim().split('\n').at(-1) ?? ''
  if (why.includes('user_allow_other')) return notForOthers()
  const [advice, code] = /not owned by user|no write access/.test(why)
    ? ['; mount on a directory of your own', 'EACCES']
    : why.includes('Operation not permitted')
      ? [
          '; it may do nothing without its set-user-id bit, nor in a process that can gain no rights: mount in a user namespace of your own (unshare -rm)',
          'EPERM',
        ]
      : why.includes('unknown option')
        ? ['; this version does not know it: leave it out', 'EINVAL']
        : ['', 'EPERM']
  return new MountError(
    `mountpoint=${mountpoint}: ${why === '' ? `${PROGRAM} has mounted nothing` : why}${advice}`,
    { option: 'mountpoint', path: mountpoint, code },
  )
}

const unmountArguments = (path: string, lazy: boolean): string[] => [
  '-u',
  ...(lazy ? ['-z'] : []),
  '--',
  path,
]

/** The errno for its message. The program has no translations. */
const errnoOf = (stderr: string): number =>
  stderr.includes('resource busy')
    ? E.EBUSY
    : /Invalid argument|not found in/.test(stderr)
      ? E.EINVAL
      : E.EPERM

/** Unmounts by fusermount3: 0 or -errno. */
export const unmountByHelper = async (path: string, flags: number): Promise<number> => {
  const program = findFusermount()
  if (program === undefined) return -E.EPERM
  const child = spawn(program, unmountArguments(path, (flags & MNT_DETACH) !== 0), {
    argv0: PROGRAM,
    stdio: ['ignore', 'ignore', 'pipe'],
    cwd: '/',
  })
  const stderr = await outputOf(child)
  return child.exitCode === 0 ? 0 : -errnoOf(stderr)
}

/** The same, synchronously, for a process that is exiting: its event loop no longer runs. */
export const unmountByHelperSync = (path: string, flags: number): number => {
  const program = findFusermount()
  if (program === undefined) return -E.EPERM
  const { status, stderr } = spawnSync(
    program,
    unmountArguments(path, (flags & MNT_DETACH) !== 0),
    { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8', cwd: '/' },
  )
  return status === 0 ? 0 : -errnoOf(stderr)
}

/**
 * A server that stays for further mounts: it registers the server, and makes mounts for clients.
 */

import { readFileSync, realpathSync, writeFileSync } from 'node:fs'

import { MountError } from '../errors.js'
import { findFusermount } from '../fuse/mount/fusermount.js'
import { hasMountRight } from '../fuse/mount/mount.js'
import { descriptorsHeld, heapTaken, type UnionThread } from '../server/thread.js'
import type { Logger } from '../log.js'
import type { Mount } from '../server/live-mount.js'
import { startMount } from '../server/mount.js'
import type { Invocation, Client } from '../resident/client.js'
import { titleForAll } from '../host/servers.js'
import {
  thisMachine,
  whyOwn,
  whyOwnBelow,
  withMounts,
  type Machine,
} from '../resident/own-process.js'
import type { Answer } from '../resident/requests.js'
import { Resident } from '../resident/resident.js'
import { moveToScope } from '../resident/scope.js'
import { getrlimitNofileHard, inInitialNamespace } from '../sys/proc.js'
import { readInvocation } from '../config/compat.js'
import { ExitCode } from './exit-codes.js'
import { lineOf, statusOf } from './failures.js'
import { readMountCommand } from './commands/mount.js'
import type { Signals } from './signals.js'
import {
  layersOf,
  logMayWait,
  openLogs,
  pathsOf,
  parseMountRequest,
  startOptionsOf,
  type MountRequest,
} from './mount-request.js'

/** A mount that this process serves. */
interface Served {
  mount: Mount
  closed: Promise<unknown>
  request: MountRequest
}

export interface StayOptions {
  first?: Served
  /** In milliseconds. */
  linger: number
  /** The process id of a server that did not answer, or 0. */
  unanswered: number
  /**
   * The server was started to stay (`server start`). Then it accepts clients of every cgroup.
   * Otherwise it accepts only clients of its own cgroup, unless systemd has given it a scope.
   */
  stays: boolean
  signals: Signals
  /** The logger of the process. */
  log: Logger
  /** A started thread for the first mount. */
  thread?: UnionThread
  /** @param leave makes the server end */
  onRegistered?: (leave: () => void) => void
}

/**
 * Errors that may be caused by the state of this process. Another process, with nothing open, may
 * not get them, so the client then starts a server of its own.
 */
const LOCAL_ERRORS: ReadonlySet<string> = new Set([
  'EAGAIN',
  'EBUSY',
  'EIO',
  'EMFILE',
  'ENFILE',
  'ENOMEM',
])

/** The kernel kills processes with a higher score first. A server of many mounts is killed late. */
const OOM_SCORE = -500

/**
 * Registers the server and serves until it has nothing left to serve. It returns at once if it
 * can't register.
 * @returns why the server can't register, or undefined after it has ended
 */
export const stay = async (options: StayOptions): Promise<string | undefined> => {
  const { first, signals, log } = options
  let ended = false
  void first?.closed.then(() => (ended = true))
  const scope = !options.stays && (await moveToScope())
  if (ended) return 'its mount has ended'
  const served = new Set<Served>()
  const hosted = (one: Served) => ({ mountpoint: one.mount.mountpoint, closed: one.closed })
  const add = (one: Served): void => {
    served.add(one)
    void one.closed.then(() => served.delete(one))
  }
  if (first !== undefined) add(first)

  let spare = options.thread
  const mountForClient = async (client: Client, invocation: Invocation): Promise<Answer> => {
    const lines: string[] = []
    const result = await mountFor(client, invocation, {
      served: [...served],
      report: line => lines.push(line),
      thread: () => {
        const thread = spare
        spare = undefined
        return thread
      },
    })
    if (typeof result === 'string') return { kind: 'own', why: result }
    if (typeof result === 'number') return { kind: 'done', status: result, lines }
    add(result)
    resident.add(hosted(result))
    signals.attach(result.mount, result.log)
    return {
      kind: 'done',
      status: ExitCode.OK,
      lines,
      undo: () => unmountUnwanted(result.mount),
    }
  }

  const started = Resident.start(
    {
      linger: options.linger,
      unanswered: options.unanswered,
      stays: options.stays,
      allCgroups: options.stays || scope,
      handle: mountForClient,
      lacks,
      onChange: mountpoints => {
        process.title = titleForAll(mountpoints)
      },
    },
    [...served].map(hosted),
  )
  if (typeof started === 'string') {
    log.debug({ why: started }, 'the server takes no further mounts')
    return started
  }
  const resident = started
  options.onRegistered?.(() => resident.leave())
  // A fault outside the mounts must not end them.
  process.on('uncaughtException', error => {
    log.error({ error: error.stack ?? error.message }, 'a fault of the program')
    resident.leave()
  })
  lowerOomScore()
  signals.onLeave(() => resident.leave())
  await resident.ended
  return undefined
}

/**
 * Above this fraction of the heap further mounts get another server. It is half of the fraction at
 * which unions give nodes back (overlay/inode/heap.ts).
 */
const HEAP_LIMIT = 1 / 4

/**
 * Implements `ResidentOptions.lacks`. At least half of the descriptors are reserved for the files
 * that the unions open.
 */
const lacks = (): string | undefined => {
  if (descriptorsHeld() > getrlimitNofileHard() / 2) return 'descriptors'
  return heapTaken() > HEAP_LIMIT ? 'memory' : undefined
}

const RETRY_MS = 100

/**
 * Unmounts a mount that no client knows of. If another mount is on top of it, it is retried until
 * that mount is gone.
 */
const unmountUnwanted = async (mount: Mount): Promise<void> => {
  let closed = false
  const note = (): void => void (closed = true)
  mount.closed.then(note, note)
  for (;;) {
    try {
      return await mount[Symbol.asyncDispose]()
    } catch {
      await new Promise(done => setTimeout(done, RETRY_MS))
      if (closed) return
    }
  }
}

const lowerOomScore = (): void => {
  const file = '/proc/self/oom_score_adj'
  try {
    if (Number(readFileSync(file, 'latin1')) > OOM_SCORE) writeFileSync(file, String(OOM_SCORE))
  } catch {
    // not permitted
  }
}

interface MountedForClient extends Served {
  log: Logger
}

interface MountContext {
  /** The mounts that are already served. */
  served: readonly Served[]
  /** Receives lines for the client. */
  report: (line: string) => void
  /**
   * Returns a started thread that has nothing to serve yet, or undefined; the mount then owns it.
   */
  thread: () => UnionThread | undefined
}

/**
 * Mounts for a client.
 * @returns a text: why the client needs a server of its own; a number: the exit status of a failed
 *   mount
 */
const mountFor = async (
  client: Client,
  invocation: Invocation,
  { served, report, thread }: MountContext,
): Promise<MountedForClient | string | number> => {
  const parsed = readInvocation(invocation.name, invocation.args, invocation.env)
  if (parsed.kind !== 'run') return 'it does not ask for a mount'
  const command = readMountCommand(parsed.args)
  if (command === undefined) return 'it does not ask for a mount'
  if (command.foreground || command.ownServer || command.transport !== 'kernel')
    return 'it asks for a server of its own'
  for (const note of parsed.notes) report(note)
  let end: (() => void) | undefined
  let pendingMount: PendingMount | undefined
  try {
    const machine = thisMachine()
    if (!hasMountRight() && !hasSameFusermount(invocation.env, machine)) return 'its PATH'
    let request = parseMountRequest(command, CWD_PLACEHOLDER)
    if (request.options.ownServer) return 'it asks for a server of its own'
    if (pathsOf(request).some(path => path.startsWith(`${CWD_PLACEHOLDER}/`))) {
      const cwd = client.cwd(path => whyOwn([path], machine) === undefined)
      if (cwd === undefined) return 'its working directory'
      request = parseMountRequest(command, cwd)
    }
    const paths = pathsOf(request)
    const why = whyOwn(paths, machine)
    if (why !== undefined) return why
    if (logMayWait(request)) return 'its log is not a regular file'
    const candidate = { paths, mountpoint: realPathOrSelf(request.mountpoint), machine }
    const pendingReason = whyOwnAmongPending(candidate)
    if (pendingReason !== undefined) return pendingReason
    pendingMount = candidate
    pending.add(pendingMount)
    if (seesMountsBelow()) {
      const layers = served.flatMap(one => layersOf(one.request))
      const belowReason = whyOwnBelow(layersOf(request), request.mountpoint, layers, machine)
      if (belowReason !== undefined) return belowReason
    }
    for (const line of request.messages) report(line)
    const logs = await openLogs(request, report, client.umask)
    end = logs.end
    const { log } = logs
    if (!client.isWaiting()) {
      logs.end()
      return 'it has stopped waiting'
    }
    const mount = await startMount({
      ...startOptionsOf(request, logs),
      impatient: true,
      thread: thread(),
      share: true,
    })
    const { mountpoint } = mount
    log.info({ mountpoint, io: mount.io, transport: command.transport }, 'mounted')
    logs.quiet()
    const closed = mount.closed
      .then(
        () => log.info({ mountpoint }, 'ended'),
        (error: unknown) => log.error({ error: lineOf(error) }, 'the server died'),
      )
      .finally(logs.end)
    return { mount, closed, request, log }
  } catch (error) {
    end?.()
    if (!(error instanceof MountError) || LOCAL_ERRORS.has(error.code ?? '')) return lineOf(error)
    report(lineOf(error))
    return statusOf(error)
  } finally {
    if (pendingMount !== undefined) pending.delete(pendingMount)
  }
}

/** A mount that is in progress and not yet visible in mountinfo. */
interface PendingMount {
  paths: readonly string[]
  mountpoint: string
  /** The mounts at the time of the request: a later list may contain this mount itself. */
  machine: Machine
}

const pending = new Set<PendingMount>()

/**
 * Why a union may not be mounted while others are in progress: a path of one leads through the
 * mountpoint of the other.
 */
const whyOwnAmongPending = (one: PendingMount): string | undefined => {
  const others = [...pending]
  const mountpoints = others.map(other => other.mountpoint)
  return (
    whyOwn(one.paths, withMounts(one.machine, mountpoints)) ??
    others
      .map(other => whyOwn(other.paths, withMounts(other.machine, [one.mountpoint])))
      .find(why => why !== undefined)
  )
}

/** The real path of a path that is safe to access; the path itself if it does not exist. */
const realPathOrSelf = (path: string): string => {
  try {
    return realpathSync.native(path)
  } catch {
    return path
  }
}

/**
 * Whether the client would run the same fusermount3. If unsure it returns false: a directory of the
 * client's PATH may lie on a file system that does not answer.
 */
const hasSameFusermount = ({ PATH = '' }: Invocation['env'], machine: Machine): boolean =>
  PATH === (process.env['PATH'] ?? '') ||
  (whyOwn(
    PATH.split(':').filter(directory => directory.startsWith('/')),
    machine,
  ) === undefined &&
    findFusermount(PATH) === findFusermount())

/** A placeholder for the working directory. It marks the paths that are relative to it. */
const CWD_PLACEHOLDER = '/\0'

/**
 * Whether the union sees mounts below its layers. It does if the server may not make private mounts
 * of the layers.
 */
const seesMountsBelow = (): boolean => process.geteuid?.() !== 0 || !inInitialNamespace()

/**
 * The server of a mount that stays for further ones: what makes it known, and how it makes a mount
 * for a client.
 */

import { readFileSync, realpathSync, writeFileSync } from 'node:fs'

import { MountError } from '../errors.js'
import { findFusermount } from '../fuse/mount/fusermount.js'
import { hasMountRight } from '../fuse/mount/mount.js'
import { descriptorsHeld, heapTaken, type UnionThread } from '../server/thread.js'
import type { Logger } from '../log.js'
import { startMount, type Mount } from '../server/mount.js'
import type { Called, Client } from '../resident/client.js'
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
import { readCall } from '../config/compat.js'
import { ExitCode } from './exit-codes.js'
import { lineOf, statusOf } from './failures.js'
import { readMountCommand } from './commands/mount.js'
import type { Signals } from './signals.js'
import {
  layersOf,
  logMayWait,
  openLogs,
  pathsOf,
  readWanted,
  startOptionsOf,
  type Wanted,
} from './wanted.js'

/** A mount that this process serves. */
interface Served {
  mount: Mount
  closed: Promise<unknown>
  wanted: Wanted
}

export interface StayOptions {
  first?: Served
  /** In milliseconds. */
  linger: number
  /** The process of a server that has not answered, or 0. */
  unanswered: number
  /**
   * It was started to stay (`server start`): then clients of every cgroup are taken; else those of
   * the own one, unless systemd gives this process one.
   */
  stays: boolean
  signals: Signals
  /** Of the process. */
  log: Logger
  /** A thread that waits for the first mount. */
  thread?: UnionThread
  /** @param leave has the server end */
  onRegistered?: (leave: () => void) => void
}

/** Which errors may be this process' own: another one, with nothing open, may have none of them. */
const OWN_TROUBLE: ReadonlySet<string> = new Set([
  'EAGAIN',
  'EBUSY',
  'EIO',
  'EMFILE',
  'ENFILE',
  'ENOMEM',
])

/** The kernel ends processes with more of it first; servers of many mounts come late. */
const OOM_SCORE = -500

/**
 * Serves until there is nothing to serve any more. Where the process can't be made known, it
 * returns at once.
 * @returns why it can't be made known, or undefined when all is over
 */
export const stay = async (options: StayOptions): Promise<string | undefined> => {
  const { first, signals, log } = options
  let over = false
  void first?.closed.then(() => (over = true))
  const scope = !options.stays && (await moveToScope())
  if (over) return 'its mount has ended'
  const served = new Set<Served>()
  const hosted = (one: Served) => ({ mountpoint: one.mount.mountpoint, closed: one.closed })
  const add = (one: Served): void => {
    served.add(one)
    void one.closed.then(() => served.delete(one))
  }
  if (first !== undefined) add(first)

  let spare = options.thread
  const take = async (client: Client, called: Called): Promise<Answer> => {
    const lines: string[] = []
    const made = await mountFor(client, called, {
      others: [...served],
      tell: line => lines.push(line),
      thread: () => {
        const thread = spare
        spare = undefined
        return thread
      },
    })
    if (typeof made === 'string') return { kind: 'own', why: made }
    if (typeof made === 'number') return { kind: 'done', status: made, lines }
    add(made)
    resident.add(hosted(made))
    signals.attach(made.mount, made.log)
    return {
      kind: 'done',
      status: ExitCode.OK,
      lines,
      undo: () => takeAway(made.mount),
    }
  }

  const started = Resident.start(
    {
      linger: options.linger,
      unanswered: options.unanswered,
      stays: options.stays,
      allCgroups: options.stays || scope,
      take,
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
  // A fault in what surrounds the mounts is no reason to end them.
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
 * From here on a further mount gets another server: half of where unions have to give nodes back
 * (overlay/inode/heap.ts).
 */
const MUCH_HEAP = 1 / 4

/**
 * As `ResidentOptions.lacks`. At least half of the descriptors are for what the unions have open.
 */
const lacks = (): string | undefined => {
  if (descriptorsHeld() > getrlimitNofileHard() / 2) return 'descriptors'
  return heapTaken() > MUCH_HEAP ? 'memory' : undefined
}

const RETRY_MS = 100

/** Unmounts what nobody knows of; where something else was mounted on top, when that is gone. */
const takeAway = async (mount: Mount): Promise<void> => {
  let over = false
  const note = (): void => void (over = true)
  mount.closed.then(note, note)
  for (;;) {
    try {
      return await mount[Symbol.asyncDispose]()
    } catch {
      await new Promise(done => setTimeout(done, RETRY_MS))
      if (over) return
    }
  }
}

const lowerOomScore = (): void => {
  const file = '/proc/self/oom_score_adj'
  try {
    if (Number(readFileSync(file, 'latin1')) > OOM_SCORE) writeFileSync(file, String(OOM_SCORE))
  } catch {
    // not allowed
  }
}

interface Made extends Served {
  log: Logger
}

interface Around {
  /** What is served already. */
  others: readonly Served[]
  /** Receives lines for the client. */
  tell: (line: string) => void
  /** One that waits for something to serve, if any; it is taken by that. */
  thread: () => UnionThread | undefined
}

/**
 * Mounts for a client.
 * @returns a text: why it has to have a server of its own; a number: the exit status of a mount
 *   that failed
 */
const mountFor = async (
  client: Client,
  called: Called,
  { others, tell, thread }: Around,
): Promise<Made | string | number> => {
  const call = readCall(called.name, called.args, called.env)
  if (call.kind !== 'run') return 'it asks for no mount'
  const command = readMountCommand(call.args)
  if (command === undefined) return 'it asks for no mount'
  if (command.foreground || command.ownServer || command.transport !== 'kernel')
    return 'it asks for a server of its own'
  for (const note of call.notes) tell(note)
  let end: (() => void) | undefined
  let coming: Coming | undefined
  try {
    const machine = thisMachine()
    if (!hasMountRight() && !hasSameFusermount(called.env, machine)) return 'its PATH'
    let wanted = readWanted(command, HERE)
    if (wanted.options.ownServer) return 'it asks for a server of its own'
    if (pathsOf(wanted).some(path => path.startsWith(`${HERE}/`))) {
      const here = client.here(path => whyOwn([path], machine) === undefined)
      if (here === undefined) return 'its working directory'
      wanted = readWanted(command, here)
    }
    const paths = pathsOf(wanted)
    const why = whyOwn(paths, machine)
    if (why !== undefined) return why
    if (logMayWait(wanted)) return 'its log is no file'
    const asked = { paths, mountpoint: realOf(wanted.mountpoint), machine }
    const among = whyOwnAmong(asked)
    if (among !== undefined) return among
    coming = asked
    underWay.add(coming)
    if (seesMountsBelow()) {
      const layers = others.flatMap(one => layersOf(one.wanted))
      const below = whyOwnBelow(layersOf(wanted), wanted.mountpoint, layers, machine)
      if (below !== undefined) return below
    }
    for (const line of wanted.lines) tell(line)
    const logs = await openLogs(wanted, tell, client.umask)
    end = logs.end
    const { log } = logs
    if (!client.waits()) {
      logs.end()
      return 'it does not wait any more'
    }
    const mount = await startMount({
      ...startOptionsOf(wanted, logs),
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
    return { mount, closed, wanted, log }
  } catch (error) {
    end?.()
    if (!(error instanceof MountError) || OWN_TROUBLE.has(error.code ?? '')) return lineOf(error)
    tell(lineOf(error))
    return statusOf(error)
  } finally {
    if (coming !== undefined) underWay.delete(coming)
  }
}

/** A mount that is being made, and that nobody sees yet. */
interface Coming {
  paths: readonly string[]
  mountpoint: string
  /** What was mounted when it was asked for: its own mount may be there by now. */
  machine: Machine
}

const underWay = new Set<Coming>()

/**
 * Why a union may not be made beside those that are being made: one of the two would lead through
 * the other.
 */
const whyOwnAmong = (one: Coming): string | undefined => {
  const others = [...underWay]
  const mountpoints = others.map(other => other.mountpoint)
  return (
    whyOwn(one.paths, withMounts(one.machine, mountpoints)) ??
    others
      .map(other => whyOwn(other.paths, withMounts(other.machine, [one.mountpoint])))
      .find(why => why !== undefined)
  )
}

/** Of a path that may be looked at; as it is where nothing is there. */
const realOf = (path: string): string => {
  try {
    return realpathSync.native(path)
  } catch {
    return path
  }
}

/**
 * Whether a client would have the same fusermount3 run. In doubt it would not: its PATH may lead to
 * what does not answer.
 */
const hasSameFusermount = ({ PATH = '' }: Called['env'], machine: Machine): boolean =>
  PATH === (process.env['PATH'] ?? '') ||
  (whyOwn(
    PATH.split(':').filter(directory => directory.startsWith('/')),
    machine,
  ) === undefined &&
    findFusermount(PATH) === findFusermount())

/** In place of a working directory: which paths start from it is seen by that. */
const HERE = '/\0'

/**
 * Who may not make private mounts of the layers sees through a union what is mounted below them.
 */
const seesMountsBelow = (): boolean => process.geteuid?.() !== 0 || !inInitialNamespace()

/**
 * Lower layers on file systems whose calls may block for an unbounded time: userspace or network
 * file systems. A thread makes each call on their descriptors (sys/slow.ts, slow-threads.ts). If
 * the answer takes longer than a moment, the call throws Pending out of the operation. After the
 * answer has arrived, the transport restarts the operation from the beginning. Calls that were
 * already answered return the same answers, up to the point where the operation stopped. This is
 * correct because lower layers do not change.
 *
 * After an operation has created, removed or moved something, it can't be restarted. A new call is
 * then made directly and blocks. So all required data of a lower object is read before the copy-up
 * (`readAhead`).
 */

import { E } from '../../sys/errno.js'
import { closeNow } from '../../sys/io.js'
import { changes, slowFiles, type SlowCall, type SlowFile } from '../../sys/slow.js'
import type { IoTask } from './task.js'
import { Pending, type Job, type KeptAnswers, type Result, type SlowRequests } from '../ops.js'
import { lengthOf } from './slow-call.js'
import type { SlowThreads } from './slow-threads.js'

/**
 * The f_type values of such file systems, from linux/magic.h and from the file systems' own
 * sources.
 */
const SLOW_TYPES = new Set([
  0x6573_5546, // FUSE
  0x6969, // NFS
  0xff53_4d42, // CIFS
  0xfe53_4d42, // SMB2
  0x517b, // SMB
  0x0102_1997, // 9P
  0x00c3_6400, // Ceph
  0x5346_414f, // OpenAFS
  0x6b41_4653, // AFS
  0x7375_7245, // Coda
  0x7461_636f, // OCFS2
  0x0116_1970, // GFS2
  0x0bd0_0bd0, // Lustre
  0x4750_4653, // GPFS
  0x1983_0326, // BeeGFS
  0x786f_4256, // VirtualBox
  0xbacb_acbc, // VMware
])

export const isSlowType = (type: number): boolean => SLOW_TYPES.has(type)

interface Answer {
  readonly result: Result
  readonly bytes: Buffer | null
}

/** A descriptor that a request has opened. */
interface OpenedFile {
  readonly fd: number
  /**
   * `fresh`: not used in this run; `used`: used in this run; `closed`: used, and closed at the end
   * of the request.
   */
  state: 'fresh' | 'used' | 'closed'
  readonly key: string
}

/** The answers that a request has received. */
class RequestAnswers implements KeptAnswers {
  readonly calls = new Map<string, Answer>()
  readonly opened = new Map<string, OpenedFile>()
  readonly byFd = new Map<number, OpenedFile>()
  runs = 0

  release(file: OpenedFile): void {
    this.opened.delete(file.key)
    this.byFd.delete(file.fd)
  }
}

class SlowJob implements Job {
  readonly #callbacks: ((result: Result) => void)[] = []
  #result: Result | undefined

  onDone(callback: (result: Result) => void): void {
    if (this.#result === undefined) this.#callbacks.push(callback)
    else callback(this.#result)
  }

  finish(result: Result): void {
    this.#result = result
    for (const callback of this.#callbacks) callback(result)
  }
}

/** Errors that may not occur at the next try: a lease, or too few descriptors. */
const TRANSIENT = new Set<Result>([-E.EAGAIN, -E.EMFILE, -E.ENFILE])

const O_PATH_OR_DIRECTORY = 0o10200000

let serials = 0

class Descriptor implements SlowFile {
  readonly serial = (++serials).toString(36)
  readonly fd: number
  /** Closing a file may block, too (fs/fuse/file.c:fuse_flush). */
  readonly isFile: boolean
  readonly #owner: SlowLayers
  /** The number of getdents calls in this run. */
  listed = 0

  constructor(owner: SlowLayers, fd: number, isFile: boolean) {
    this.#owner = owner
    this.fd = fd
    this.isFile = isFile
  }

  ask(call: SlowCall, out: Uint8Array | null, direct: () => Result): Result {
    return this.#owner.ask(this, call, out, direct)
  }

  open(call: SlowCall, direct: () => Result): Result {
    return this.#owner.open(this, call, direct)
  }

  copied(fd: number): void {
    this.#owner.register(fd, this.isFile)
  }

  close(): void {
    this.#owner.close(this)
  }

  claim(): void {
    this.#owner.claim(this.fd)
  }

  isOf(owner: SlowLayers): boolean {
    return owner === this.#owner
  }
}

interface FreshNodes {
  readonly nextId: number
  releaseFrom: (id: number) => void
}

export class SlowLayers implements SlowRequests {
  readonly threads: SlowThreads
  #answers: RequestAnswers | null = null
  /** `changes.count` at the last point where the operation could be restarted. */
  #restartableAt = 0
  /** The operation can't be restarted at all. */
  #neverRestart = false

  /**
   * Used to release the nodes of an operation that will be restarted. No reply has contained them
   * yet.
   */
  readonly #nodes: FreshNodes
  #firstId = 0

  constructor(threads: SlowThreads, nodes: FreshNodes) {
    this.threads = threads
    this.#nodes = nodes
  }

  /**
   * From now on, calls on this descriptor and on descriptors opened below it are calls on a slow
   * layer.
   */
  register(fd: number, isFile: boolean): void {
    slowFiles.set(fd, new Descriptor(this, fd, isFile))
  }

  // Requests

  begin(kept: KeptAnswers | null): void {
    const answers = (kept as RequestAnswers | null) ?? new RequestAnswers()
    answers.runs++
    for (const file of answers.byFd.values()) {
      file.state = 'fresh'
      const descriptor = slowFiles.get(file.fd)
      if (descriptor instanceof Descriptor) descriptor.listed = 0
    }
    this.#answers = answers
    this.#firstId = this.#nodes.nextId
    this.markRestartable()
  }

  suspend(): KeptAnswers | null {
    const kept = this.#answers
    this.#nodes.releaseFrom(this.#firstId)
    this.#answers = null
    return kept
  }

  end(): void {
    const kept = this.#answers
    this.#answers = null
    if (kept === null || kept.byFd.size === 0) return
    // A descriptor that is open and in use now belongs to the code that opened it.
    for (const file of kept.byFd.values()) if (file.state !== 'used') this.#closeFile(file.fd)
  }

  drop(kept: KeptAnswers | null): void {
    if (kept === null) return
    for (const { fd } of (kept as RequestAnswers).byFd.values()) this.#closeFile(fd)
    ;(kept as RequestAnswers).byFd.clear()
  }

  /**
   * Declares that the operation may be restarted at this point: everything that it has begun is
   * complete.
   */
  markRestartable(): void {
    this.#restartableAt = changes.count
  }

  /**
   * Runs a step that is complete if it succeeds. If the operation could be restarted before, it can
   * be restarted after.
   */
  atomicStep(step: () => Result): Result {
    const before = this.#mayWait()
    const result = step()
    if (before && result >= 0) this.markRestartable()
    return result
  }

  /** The answers of the current request, for work that is done for it later. */
  get current(): KeptAnswers | null {
    return this.#answers
  }

  /** Runs the end of a job with the answers of the request that started the job. */
  withAnswers<T>(kept: KeptAnswers | null, run: () => T): T {
    const [before, held] = [this.#answers, this.#neverRestart]
    this.#answers = kept as RequestAnswers | null
    this.#neverRestart = true
    try {
      return run()
    } finally {
      this.#answers = before
      this.#neverRestart = held
    }
  }

  #mayWait(): boolean {
    return !this.#neverRestart && changes.count === this.#restartableAt
  }

  // Calls

  ask(d: Descriptor, call: SlowCall, out: Uint8Array | null, direct: () => Result): Result {
    const kept = this.#answers
    if (kept === null) return direct()
    let key = d.serial + JSON.stringify(call)
    if (call.op === 'getdents') key += d.listed++
    let answer = kept.calls.get(key)
    if (answer === undefined) {
      if (!this.#mayWait()) return direct()
      const job = new SlowJob()
      const done = (result: Result, bytes: Buffer): void => {
        const length = lengthOf(call, result)
        answer = { result, bytes: length > 0 ? Buffer.from(bytes.subarray(0, length)) : null }
        kept.calls.set(key, answer)
        job.finish(0)
      }
      if (!this.threads.run({ fd: d.fd, ...call }, true, done)) throw new Pending(job, false)
    }
    const { result, bytes } = answer as Answer
    if (out !== null && bytes !== null) out.set(bytes)
    return result
  }

  open(d: Descriptor, call: SlowCall, direct: () => Result): Result {
    const isFile = 'flags' in call && (call.flags & O_PATH_OR_DIRECTORY) === 0
    const kept = this.#answers
    const text = d.serial + JSON.stringify(call)
    let key = text
    if (kept !== null) {
      for (let n = 1, file; (file = kept.opened.get(key)) !== undefined; key = text + n++) {
        if (file.state === 'used') continue
        file.state = 'used'
        const descriptor = slowFiles.get(file.fd)
        if (descriptor instanceof Descriptor) descriptor.listed = 0
        return file.fd
      }
      const refused = kept.calls.get(key)
      if (refused !== undefined) {
        // The next try may succeed, and the request may call again.
        if (TRANSIENT.has(refused.result)) kept.calls.delete(key)
        return refused.result
      }
    }
    if (kept === null || !this.#mayWait()) {
      const fd = direct()
      if (fd >= 0) this.register(fd, isFile)
      return fd
    }
    const job = new SlowJob()
    let opened: Result = 0
    const done = (result: Result): void => {
      opened = result
      if (result < 0) {
        kept.calls.set(key, { result, bytes: null })
      } else {
        this.register(result, isFile)
        const file: OpenedFile = { fd: result, state: 'fresh', key }
        kept.opened.set(key, file)
        kept.byFd.set(result, file)
      }
      job.finish(0)
    }
    if (!this.threads.run({ fd: d.fd, ...call }, true, done)) throw new Pending(job, false)
    const file = kept.byFd.get(opened)
    if (file !== undefined) file.state = 'used'
    return opened
  }

  /** Runs a task that reads from a slow layer. As `IoPool.submit`. */
  submit(task: IoTask, finish: (result: Result) => Result, abandon: () => void): Job {
    const job = new SlowJob()
    const done = (result: Result): void => job.finish(finish(result))
    this.threads.run({ op: 'task', task }, false, done, abandon)
    return job
  }

  claim(fd: number): void {
    const file = this.#answers?.byFd.get(fd)
    if (file !== undefined) this.#answers?.release(file)
  }

  close({ fd }: Descriptor): void {
    const file = this.#answers?.byFd.get(fd)
    if (file === undefined) this.#closeFile(fd)
    else file.state = 'closed'
  }

  #closeFile(fd: number): void {
    const descriptor = slowFiles.get(fd)
    slowFiles.delete(fd)
    if (!(descriptor instanceof Descriptor) || !descriptor.isFile) {
      closeNow(fd)
      return
    }
    this.threads.run(
      { op: 'task', task: { kind: 'close', fd } },
      false,
      () => {},
      () => closeNow(fd),
    )
  }

  /** Unregisters all descriptors. Their users close them. */
  release(): void {
    for (const [fd, file] of slowFiles)
      if (file instanceof Descriptor && file.isOf(this)) slowFiles.delete(fd)
    this.threads.close()
  }
}

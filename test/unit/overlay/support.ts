/**
 * The state of a union without a transport, for unit tests of the modules that work on it. It is
 * closed at the end of the test.
 */

import type { Test } from 'tap'

import { findChild } from '../../../src/overlay/namei/lookup.js'
import type { Node } from '../../../src/overlay/inode/node.js'
import { openState } from '../../../src/overlay/open-union.js'
import { Pending, type NodeId, type Result } from '../../../src/overlay/ops.js'
import type { UnionOptions } from '../../../src/overlay/options.js'
import { Overlay } from '../../../src/overlay/overlay.js'
import type { Union } from '../../../src/overlay/namei/context.js'
import * as sys from '../../helpers/syscalls.js'

/** Only root can create overlay xattrs, whiteouts and files of other owners. */
export const skipUnions: string | false = process.geteuid?.() === 0 ? false : 'needs root'

export interface State {
  u: Union
  /** The same union as a transport sees it. */
  ops: Overlay
  /** Messages that were logged at level warn or above. */
  complaints: string[]
  /** Nodes whose attributes were reported as changed. */
  notified: NodeId[]
  /** The node of a path; throws if there is none. */
  find: (path: string) => Node
  /** Closes the union before the end of the test. */
  close: () => void
}

export const stateOf = (
  t: Test,
  options: UnionOptions,
  writeback = false,
  passthrough = false,
): State => {
  const complaints: string[] = []
  const notified: NodeId[] = []
  const complain = (_: unknown, message: string): void => void complaints.push(message)
  const umask = process.umask()
  const u = openState(options, {
    log: {
      debug: () => {},
      info: () => {},
      warn: complain,
      error: complain,
      isLevelEnabled: () => false,
    },
    notifier: {
      attrChanged: node => void notified.push(node),
      dropPages: () => null,
      forgetNodes: () => null,
    },
    writeback,
    passthrough,
    mountFlags: sys.MS.NOATIME, // as parity.ts mounts the kernel's
  })
  sys.umask(umask)
  const ops = new Overlay(u)
  let closed = false
  const close = (): void => {
    if (!closed) ops.close()
    closed = true
  }
  t.teardown(close)
  const find = (path: string): Node => {
    let node = u.nodes.root
    for (const name of path.split('/').filter(part => part !== '')) {
      const child = findChild(u, node, name)
      if (typeof child === 'number') throw new Error(`${path}: errno ${-child}`)
      node = child
    }
    return node
  }
  return { u, ops, complaints, notified, find, close }
}

/** The `Pending` that a call throws. */
export const pendingOf = (call: () => unknown): Pending => {
  let answer: unknown
  try {
    answer = call()
  } catch (error) {
    if (error instanceof Pending) return error
    throw error
  }
  throw new Error(`answered at once: ${String(answer)}`)
}

/** Calls `runCallbacks` until the job is done. */
export const resultOf = async (
  { job }: Pick<Pending, 'job'>,
  runCallbacks: () => void,
): Promise<Result> => {
  const results: Result[] = []
  job.onDone(result => void results.push(result))
  for (;;) {
    const [result] = results
    if (result !== undefined) return result
    await new Promise(next => setTimeout(next, 1))
    runCallbacks()
  }
}

/** What the processes that measure send to the one that reports. */

import type { Medium } from './scratch.js'

/** Where a sample belongs, but for the processors, which the one that reports knows. */
export interface Case {
  medium: Medium
  workload: string
  step: string
  system: string
}

/** One run of a step, or of mounting or unmounting. */
export interface Sample extends Case {
  type: 'sample'
  operations: number
  ms: number
  /** Processor seconds; of mounting they are not known. */
  clientCpu: number
  serverCpu: number
  /** Peak memory of the server until then, in KiB; 0 without a server. */
  memory: number
}

/** A step, or the whole workload (`mount`), that a file system can't do. It is not tried again. */
export interface Failure extends Case {
  type: 'failure'
  reason: string
}

/** Requests that a step has sent to the server, by opcode. */
export interface Requests {
  type: 'requests'
  workload: string
  step: string
  system: string
  operations: number
  byOpcode: Record<string, number>
}

/** Resident memory of a server, in KiB. */
export interface Memory {
  type: 'memory'
  system: string
  /** Files and folders that were looked at. */
  nodes: number
  before: number
  after: number
  /** When the kernel had forgotten all of them. */
  forgotten: number
}

export interface Progress {
  type: 'progress'
  done: number
  all: number
  text: string
}

export type Message = Sample | Failure | Requests | Memory | Progress

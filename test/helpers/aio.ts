/**
 * Asynchronous I/O with io_submit(2), one request at a time; raw system calls, in addition to
 * syscalls.ts.
 */

// oxlint-disable-next-line no-restricted-imports -- the test's own calls must not share code with what is tested
import koffi from 'koffi'

const libc = koffi.load('libc.so.6')
const arm = process.arch === 'arm64'
const NR = arm
  ? { setup: 0, destroy: 1, submit: 2, getevents: 4 }
  : { setup: 206, destroy: 207, submit: 209, getevents: 208 }

type Call = (...args: unknown[]) => number
const setup = libc.func(
  'int64_t syscall(int64_t nr, int64_t events, _Out_ int64_t *context)',
) as Call
const destroy = libc.func('int64_t syscall(int64_t nr, int64_t context)') as Call
const submit = libc.func(
  'int64_t syscall(int64_t nr, int64_t context, int64_t count, int64_t *iocbs)',
) as Call
const getevents = libc.func(
  'int64_t syscall(int64_t nr, int64_t context, int64_t min, int64_t max, _Out_ int64_t *events, int64_t timeout)',
) as Call

const done = (result: number): number => (result < 0 ? -koffi.errno() : result)

/** Page-aligned memory, which O_DIRECT needs. */
export const alignedBuffer = (size: number): Buffer => {
  const PAGE = 4096
  const room = Buffer.allocUnsafeSlow(size + PAGE)
  const address = Number(koffi.address(room))
  const skip = (PAGE - (address % PAGE)) % PAGE
  return room.subarray(skip, skip + size)
}

/** IOCB_CMD_PWRITE */
const PWRITE = 1

/** A context of io_setup(2). */
export class Aio {
  readonly #context: bigint

  constructor() {
    const context = [0]
    const result = done(setup(NR.setup, 8, context))
    if (result < 0) throw new Error(`io_setup: ${result}`)
    this.#context = BigInt(context[0] ?? 0)
  }

  /**
   * Submits a write of all of `buf` and waits for its end.
   * @returns the result, as pwrite(2)
   */
  pwrite(fd: number, buf: Buffer, offset: number): number {
    // struct iocb, 64 bytes
    const iocb = Buffer.alloc(64)
    iocb.writeUInt16LE(PWRITE, 16)
    iocb.writeUInt32LE(fd, 20)
    iocb.writeBigUInt64LE(koffi.address(buf), 24)
    iocb.writeBigUInt64LE(BigInt(buf.length), 32)
    iocb.writeBigInt64LE(BigInt(offset), 40)
    const list = BigInt64Array.of(koffi.address(iocb))
    const submitted = done(submit(NR.submit, this.#context, 1, list))
    if (submitted !== 1) return submitted
    // struct io_event: data, obj, res, res2
    const event = new BigInt64Array(4)
    const got = done(getevents(NR.getevents, this.#context, 1, 1, event, 0))
    return got === 1 ? Number(event[2]) : got
  }

  close(): void {
    destroy(NR.destroy, this.#context)
  }
}

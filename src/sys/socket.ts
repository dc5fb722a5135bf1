/**
 * A pair of sockets, and a descriptor received over one: unix(7), SCM_RIGHTS.
 */

import { E } from './errno.js'
import * as c from './libc.js'
import { fail } from './libc.js'
import { i32, put64, u32, words } from './scratch.js'
import type { Result } from './types.js'

const AF_UNIX = 1
const SOCK_STREAM = 1
const SOCK_SEQPACKET = 5
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const MSG_DONTWAIT = 0x40
const MSG_CMSG_CLOEXEC = 0x4000_0000

const pair = (type: number): [number, number] | number => {
  if (c.socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, words) < 0) return fail()
  return [i32[0]!, i32[1]!]
}

/** socketpair(2): both ends, stream sockets with O_CLOEXEC; or -errno. */
export const socketPair = (): [number, number] | number => pair(SOCK_STREAM)

/** The same with sockets that keep messages apart, even empty ones, and never wait. */
export const messagePair = (): [number, number] | number => pair(SOCK_SEQPACKET | SOCK_NONBLOCK)

// Places in `words`: struct msghdr {u64 name; u32 namelen, pad; u64 iov, iovlen, control, controllen; u32 flags},
// struct iovec {u64 base, len}, one byte of data, struct cmsghdr {u64 len; u32 level, type} and a descriptor.
// (musl has 32-bit lengths and padding where glibc has 64 bits: the same bytes on a little-endian machine.)
const IOV = 56
const BYTE = 72
const CONTROL = 80
const CONTROL_SIZE = 24
const CMSG_LEN = 20

/**
 * recvmsg(2): a descriptor that was sent with one byte, O_CLOEXEC here. Does not wait: -EAGAIN. -EPIPE: the
 * other end was closed, and nothing was sent; -EPROTO: something without a descriptor was.
 */
export const receiveFd = (socket: number): Result => {
  u32.fill(0, 0, (CONTROL + CONTROL_SIZE) / 4)
  put64(4, words + IOV)
  put64(6, 1)
  put64(8, words + CONTROL)
  put64(10, CONTROL_SIZE)
  put64(IOV / 4, words + BYTE)
  put64(IOV / 4 + 2, 1)
  let r
  do r = c.recvmsg(socket, words, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
  while (r < 0 && (r = fail()) === -E.EINTR)
  if (r < 0) return r
  if (r === 0) return -E.EPIPE
  const at = CONTROL / 4
  if (u32[10]! < CMSG_LEN || u32[at] !== CMSG_LEN) return -E.EPROTO
  if (u32[at + 2] !== SOL_SOCKET || u32[at + 3] !== SCM_RIGHTS) return -E.EPROTO
  return i32[at + 4]!
}

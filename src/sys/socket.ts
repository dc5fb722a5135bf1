/**
 * unix(7) sockets: a pair of sockets, a descriptor received over one (SCM_RIGHTS), and a socket for
 * messages to a named one.
 */

import { E } from './errno.js'
import { close } from './io.js'
import * as c from './libc.js'
import { fail } from './libc.js'
import { bytes, i32, put64, u32, words } from './scratch.js'
import type { Result } from './types.js'

const AF_UNIX = 1
const SOCK_STREAM = 1
const SOCK_DGRAM = 2
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

/** socketpair(2): two connected stream sockets with O_CLOEXEC, or -errno. */
export const socketPair = (): [number, number] | number => pair(SOCK_STREAM)

/**
 * The same with sockets that preserve message boundaries, even for empty messages, and never block.
 */
export const messagePair = (): [number, number] | number => pair(SOCK_SEQPACKET | SOCK_NONBLOCK)

/** sizeof(sockaddr_un.sun_path) */
const PATH_SIZE = 108

/**
 * socket(2) and connect(2): a datagram socket that sends to the socket at `path`, O_CLOEXEC. It
 * never blocks: write(2) fails with EAGAIN. -EPROTOTYPE: the socket at `path` is of another type;
 * -ECONNREFUSED: no process reads it.
 */
export const datagramsTo = (path: string): Result => {
  const name = Buffer.from(path)
  if (name.length >= PATH_SIZE) return -E.ENAMETOOLONG
  const fd = c.socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
  if (fd < 0) return fail()
  // struct sockaddr_un {u16 family; char path[108]}
  bytes.fill(0, 0, 2 + PATH_SIZE)
  bytes.writeUInt16LE(AF_UNIX)
  name.copy(bytes, 2)
  if (c.connect(fd, words, 2 + name.length + 1) === 0) return fd
  const error = fail()
  close(fd)
  return error
}

// Offsets in `words`: struct msghdr {u64 name; u32 namelen, pad; u64 iov, iovlen, control,
// controllen; u32 flags}, struct iovec {u64 base, len}, one byte of data, struct cmsghdr {u64 len;
// u32 level, type} and a descriptor. (musl has 32-bit lengths with padding where glibc has 64 bits:
// the same bytes on a little-endian machine.)
const IOV = 56
const BYTE = 72
const CONTROL = 80
const CONTROL_SIZE = 24
const CMSG_LEN = 20

/**
 * recvmsg(2): receives a descriptor that was sent with one byte, O_CLOEXEC. It never blocks:
 * -EAGAIN. -EPIPE: the other end was closed without a message; -EPROTO: a message without a
 * descriptor arrived.
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

/**
 * System calls that are newer than the oldest supported kernel (5.10): whether they exist and this
 * process may call them. They are probed at first use, and the result is cached.
 */

import { E } from './errno.js'
import { fail, NR, syscall5 } from './libc.js'
import { dotName } from './scratch.js'

/** undefined: not probed yet. Tests set them to false to run the code for older kernels. */
export const features: {
  /** getxattrat and related calls: Linux 6.13 */
  xattrat: boolean | undefined
  /** fchmodat2: Linux 6.6 */
  fchmodat2: boolean | undefined
} = { xattrat: undefined, fchmodat2: undefined }

// Probes with the descriptor -1, which the kernel checks before the other arguments. Some seccomp
// filters refuse unknown calls with EPERM instead of ENOSYS, so only EBADF proves that the call
// exists.
const exists = (nr: number): boolean =>
  syscall5(nr, -1, dotName, 0, 0, 0) < 0 && fail() === -E.EBADF

export const probeXattrat = (): boolean => (features.xattrat = exists(NR.listxattrat))
export const probeFchmodat2 = (): boolean => (features.fchmodat2 = exists(NR.fchmodat2))

/**
 * System calls newer than the oldest kernel this runs on (5.10): whether they are there and we may
 * call them. Asked when first needed, and remembered.
 */

import { E } from './errno.js'
import { fail, NR, syscall5 } from './libc.js'
import { dotName } from './scratch.js'

/** undefined: not asked yet. Tests set them to false to run the code for older kernels. */
export const features: {
  /** getxattrat and its three siblings: Linux 6.13 */
  xattrat: boolean | undefined
  /** fchmodat2: Linux 6.6 */
  fchmodat2: boolean | undefined
} = { xattrat: undefined, fchmodat2: undefined }

// On the descriptor -1, with arguments that are looked at later. Some seccomp filters refuse
// unknown calls with EPERM instead of ENOSYS: only EBADF is a yes.
const exists = (nr: number): boolean =>
  syscall5(nr, -1, dotName, 0, 0, 0) < 0 && fail() === -E.EBADF

export const probeXattrat = (): boolean => (features.xattrat = exists(NR.listxattrat))
export const probeFchmodat2 = (): boolean => (features.fchmodat2 = exists(NR.fchmodat2))

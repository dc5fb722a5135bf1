/**
 * The modes of a union: with the kernel's write-back cache, with passthrough, without OPEN
 * requests, with `xattr_permissions=2`, as an ordinary user, or as root of a user namespace.
 */
export const MODES = ['cached', 'passthrough', 'noopen', 'xattr', 'user', 'userns'] as const
export type Mode = (typeof MODES)[number]

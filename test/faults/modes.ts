/**
 * How a union is used: with the kernel's write-back, with passthrough, where the kernel opens files
 * without a message, with `xattr_permissions=2`, by an ordinary user, or by root of a user
 * namespace.
 */
export const MODES = ['cached', 'passthrough', 'noopen', 'xattr', 'user', 'userns'] as const
export type Mode = (typeof MODES)[number]

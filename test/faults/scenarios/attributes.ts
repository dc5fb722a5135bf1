/** Attributes, xattrs, ACLs, inode flags, sizes. */

import { SetAttrValid as V } from '../../../src/overlay/ops.js'
import { acl } from '../../helpers/layers.js'
import * as sys from '../../helpers/syscalls.js'
import type { UnionFs } from '../../helpers/union.js'
import type { Mode } from '../modes.js'
import { CAPABILITY, NOTES, needsRoot, opened, type Scenario } from '../scenario.js'

const { O } = sys
const LONG_AGO = { atimeSec: 5, atimeNsec: 6, mtimeSec: 7, mtimeNsec: 8 }

export const attributes: readonly Scenario[] = [
  ...['uf', 'f', 'f.cap', 'f.ro', 'h1', 'sparse', 'd', 'm', 'p', 'd/x', 'ul1', 'ro'].flatMap(
    path => [
      {
        name: `chmod ${path}`,
        // An ordinary user needs permission to list a directory.
        run: (fs: UnionFs) => fs.chmod(path, ['d', 'm', 'ro'].includes(path) ? 0o750 : 0o640),
      },
      {
        name: `utimens ${path}`,
        run: (fs: UnionFs) => fs.setattr(path, { valid: V.ATIME | V.MTIME, ...LONG_AGO }),
      },
    ],
  ),
  ...['uf', 'f', 'h1', 'd', 's', 'f.cap'].map(path => ({
    name: `chown ${path}`,
    run: (fs: UnionFs) =>
      fs.setattr(path, { valid: V.UID | V.GID | V.KILL_SUIDGID, uid: 3, gid: 4 }),
    in: needsRoot,
  })),
  {
    name: 'utimens of a symlink',
    run: fs => fs.setattr('s', { valid: V.ATIME | V.MTIME, ...LONG_AGO }),
  },
  ...['uf', 'f', 'h1', 'sparse', 'f.ro'].flatMap(path => [
    {
      name: `truncate ${path} to 0`,
      writes: true as const,
      run: (fs: UnionFs) => fs.truncate(path, 0),
    },
    {
      name: `truncate ${path} to 3`,
      writes: true as const,
      run: (fs: UnionFs) => fs.truncate(path, 3),
    },
    {
      name: `truncate ${path} with its time`,
      writes: true as const,
      run: (fs: UnionFs) => fs.setattr(path, { valid: V.SIZE | V.MTIME, size: 2, ...LONG_AGO }),
    },
    {
      name: `open ${path} with O_TRUNC`,
      writes: true as const,
      run: (fs: UnionFs) => opened(fs, path, O.RDWR | O.TRUNC, () => 0),
    },
  ]),
  {
    name: 'truncate that drops set-id bits',
    writes: true,
    run: fs => fs.setattr('f', { valid: V.SIZE | V.KILL_SUIDGID, size: 3 }),
  },
  ...['uf', 'f', 'd', 'm', 'h1', 'f.ro'].map(path => ({
    name: `setxattr ${path}`,
    run: (fs: UnionFs) => fs.setxattr(path, 'user.more', 'value'),
    // The kernel does not let an ordinary user set an xattr of a file without write permission.
    in: (mode: Mode) => path !== 'f.ro' || mode !== 'user',
  })),
  ...['uf', 'f', 'd', 'h1'].map(path => ({
    name: `removexattr ${path}`,
    run: (fs: UnionFs) => fs.removexattr(path, NOTES),
  })),
  { name: 'getxattr', run: fs => fs.getxattr('f', NOTES) },
  {
    name: 'listxattr',
    run: async fs => {
      const found = await fs.listxattr('f')
      return typeof found === 'number' ? found : found.join()
    },
  },
  ...['uf', 'f', 'd'].flatMap(path => [
    {
      name: `set an ACL of ${path}`,
      run: (fs: UnionFs) =>
        fs.setxattr(path, 'system.posix_acl_access', acl('u::rwx,u:5:rwx,g::r-x,m::rwx,o::---')),
      in: needsRoot,
    },
    {
      name: `set a default ACL of ${path}`,
      run: (fs: UnionFs) =>
        fs.setxattr(path, 'system.posix_acl_default', acl('u::rwx,u:5:rwx,g::r-x,m::rwx,o::---')),
      in: (mode: Mode) => needsRoot(mode) && path === 'd',
    },
  ]),
  {
    name: 'remove a default ACL',
    run: fs => fs.removexattr('acl', 'system.posix_acl_default'),
    in: needsRoot,
  },
  {
    name: 'set a capability',
    run: fs => fs.setxattr('uf', 'security.capability', CAPABILITY),
    in: needsRoot,
  },
  ...['uf', 'f', 'd'].flatMap(path => [
    { name: `immutable ${path}`, run: (fs: UnionFs) => fs.setFlags(path, 0x10) },
    { name: `getflags ${path}`, run: async (fs: UnionFs) => Math.min(0, await fs.getFlags(path)) },
  ]),
  {
    name: 'not immutable any more',
    prepare: fs => fs.setFlags('f', 0x10),
    run: fs => fs.setFlags('f', 0),
  },
]

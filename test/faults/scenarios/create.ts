/**
 * Creating an object under a name that is free, deleted, or only in a lower directory, and moving
 * an object there.
 */

import * as sys from '../../helpers/syscalls.js'
import type { UnionFs } from '../../helpers/union.js'
import type { Mode } from '../modes.js'
import { createAs, needsRoot, OTHER, tmpfile, type Scenario } from '../scenario.js'

const { S, O } = sys

export const create: readonly Scenario[] = [
  ...[
    'new',
    'ud/new',
    'm/new',
    'd/new',
    'd/sub/new',
    'gone',
    'm/w',
    'acl/new',
    'acl/gone',
    'sgid/new',
    'sgid/gone',
  ].flatMap(path => [
    { name: `create ${path}`, run: (fs: UnionFs) => fs.create(path, 0o664) },
    { name: `mkdir ${path}`, run: (fs: UnionFs) => fs.mkdir(path, 0o775) },
    { name: `symlink ${path}`, run: (fs: UnionFs) => fs.symlink('to', path) },
    { name: `fifo ${path}`, run: (fs: UnionFs) => fs.mknod(path, S.IFIFO | 0o664) },
    { name: `link uf to ${path}`, run: (fs: UnionFs) => fs.link('uf', path) },
    { name: `link f to ${path}`, run: (fs: UnionFs) => fs.link('f', path) },
    { name: `link h1 to ${path}`, run: (fs: UnionFs) => fs.link('h1', path) },
    { name: `rename uf to ${path}`, run: (fs: UnionFs) => fs.rename('uf', path) },
    { name: `rename f to ${path}`, run: (fs: UnionFs) => fs.rename('f', path) },
    {
      name: `rename ud to ${path}`,
      run: (fs: UnionFs) => fs.rename('ud', path),
      in: notInside(path, 'ud'),
    },
    {
      name: `rename d to ${path}`,
      run: (fs: UnionFs) => fs.rename('d', path),
      in: notInside(path, 'd'),
    },
  ]),
  { name: 'create for another user', run: fs => fs.create('new', 0o664, OTHER), in: needsRoot },
  { name: 'mkdir for another user', run: fs => fs.mkdir('m/w', 0o775, OTHER), in: needsRoot },
  { name: 'a device', run: fs => fs.mknod('new', S.IFCHR | 0o644, 1, 3), in: needsRoot },
  {
    name: 'a device over a whiteout',
    run: fs => fs.mknod('gone', S.IFBLK | 0o644, 1, 3),
    in: needsRoot,
  },
  { name: 'a socket', run: fs => fs.mknod('new', S.IFSOCK | 0o644) },
  { name: 'create, opened', run: fs => createAs(fs, 'm/new', O.RDWR | O.CREAT) },
  { name: 'create an existing file', run: fs => createAs(fs, 'f', O.RDWR | O.CREAT) },
  { name: 'tmpfile and link', run: fs => tmpfile(fs, '', 'new') },
  { name: 'tmpfile and link over a whiteout', run: fs => tmpfile(fs, 'm', 'w') },
  { name: 'tmpfile and link in a lower directory', run: fs => tmpfile(fs, 'd', 'new') },
  { name: 'link of a lower link', run: fs => fs.link('d/h2', 'ud/new') },
  { name: 'link of an upper link', run: fs => fs.link('ul1', 'm/new') },
  { name: 'link of a symlink', run: fs => fs.link('s', 'new') },
  {
    name: 'link of a copied link',
    prepare: fs => fs.chmod('h1', 0o600),
    run: fs => fs.link('d/h3', 'new'),
  },
]

function notInside(path: string, directory: string): (mode: Mode) => boolean {
  return () => !path.startsWith(`${directory}/`)
}

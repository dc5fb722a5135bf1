/** unlink and rmdir. */

import * as sys from '../../helpers/syscalls.js'
import type { UnionFs } from '../../helpers/union.js'
import type { Mode } from '../modes.js'
import type { Scenario } from '../scenario.js'

const { O } = sys

export const remove: readonly Scenario[] = [
  ...[
    'uf',
    'f',
    's',
    'p',
    'h1',
    'd/h2',
    'ul1',
    'ud/a',
    'm/a',
    'm/b',
    'd/x',
    'o/f',
    'f.ro',
    'ro/g',
  ].map(path => ({
    name: `unlink ${path}`,
    run: (fs: UnionFs) => fs.unlink(path),
    // In a directory without write permission the kernel refuses this for an ordinary user without
    // a request.
    in: (mode: Mode) => path !== 'ro/g' || mode !== 'user',
  })),
  {
    name: 'unlink of a copied link',
    prepare: fs => fs.chmod('h1', 0o600),
    run: fs => fs.unlink('h1'),
  },
  {
    name: 'unlink of a link whose file was copied',
    prepare: fs => fs.chmod('h1', 0o600),
    run: fs => fs.unlink('d/h3'),
  },
  {
    name: 'unlink of the last of the links',
    prepare: async fs => [await fs.unlink('h1'), await fs.unlink('d/h2')],
    run: fs => fs.unlink('d/h3'),
  },
  { name: 'unlink while open', begin: fs => fs.open('f', O.RDONLY), run: fs => fs.unlink('f') },
  ...['ue', 'e'].map(path => ({ name: `rmdir ${path}`, run: (fs: UnionFs) => fs.rmdir(path) })),
  ...['ud', 'd', 'm'].map(path => ({
    name: `rmdir ${path}`,
    refused: true as const,
    run: (fs: UnionFs) => fs.rmdir(path),
  })),
  {
    name: 'rmdir of a lower directory',
    prepare: async fs => [await fs.unlink('d/sub/y')],
    run: fs => fs.rmdir('d/sub'),
  },
  {
    name: 'rmdir of an opaque directory with whiteouts',
    prepare: async fs => [
      await fs.unlink('d/sub/y'),
      await fs.rmdir('d/sub'),
      await fs.mkdir('d/sub', 0o755),
    ],
    run: fs => fs.rmdir('d/sub'),
  },
]

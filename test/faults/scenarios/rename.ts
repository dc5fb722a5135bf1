/** rename. */

import * as sys from '../../helpers/syscalls.js'
import type { Mode } from '../modes.js'
import type { Scenario } from '../scenario.js'

const { RENAME } = sys

/**
 * The kernel refuses a rename without write permission of a directory for an ordinary user without
 * a request.
 */
const notUser = (mode: Mode): boolean => mode !== 'user'

export const rename: readonly Scenario[] = [
  { name: 'rename over a file', run: fs => fs.rename('uf', 'uf2') },
  { name: 'rename over a lower file', run: fs => fs.rename('uf', 'f') },
  { name: 'rename of a lower file over a lower file', run: fs => fs.rename('d/x', 'm/a') },
  { name: 'rename of a lower file over an upper file', run: fs => fs.rename('d/x', 'ud/a') },
  { name: 'rename over a link', run: fs => fs.rename('uf', 'd/h2') },
  { name: 'rename of a link', run: fs => fs.rename('h1', 'new') },
  {
    name: 'rename of a copied link',
    prepare: fs => fs.chmod('h1', 0o600),
    run: fs => fs.rename('d/h3', 'm/w'),
  },
  { name: 'rename over an empty directory', run: fs => fs.rename('ud', 'ue') },
  { name: 'rename over an empty merged directory', run: fs => fs.rename('ud', 'e') },
  { name: 'rename of a merged directory', run: fs => fs.rename('m', 'new') },
  { name: 'rename of a merged directory over an empty one', run: fs => fs.rename('m', 'e') },
  { name: 'rename of a lower directory into another', run: fs => fs.rename('d', 'ud/new') },
  { name: 'rename of a lower directory within its own', run: fs => fs.rename('d/sub', 'd/sub2') },
  {
    name: 'rename of a directory out of a moved one',
    prepare: fs => fs.rename('d', 'd2'),
    run: fs => fs.rename('d2/sub', 'ud/sub'),
  },
  { name: 'rename of a read-only directory', run: fs => fs.rename('uro', 'ud/new'), in: notUser },
  {
    name: 'rename of a lower read-only directory',
    run: fs => fs.rename('ro', 'ud/new'),
    in: notUser,
  },
  { name: 'rename in a read-only directory', run: fs => fs.rename('ro/g', 'ro/g2'), in: notUser },
  { name: 'rename of a symlink', run: fs => fs.rename('s', 'm/w') },
  { name: 'rename NOREPLACE', run: fs => fs.rename('f', 'm/new', RENAME.NOREPLACE) },
  { name: 'rename EXCHANGE of files', run: fs => fs.rename('f', 'm/a', RENAME.EXCHANGE) },
  { name: 'rename EXCHANGE of directories', run: fs => fs.rename('d', 'ud', RENAME.EXCHANGE) },
  {
    name: 'rename EXCHANGE of a file and a directory',
    run: fs => fs.rename('uf', 'm', RENAME.EXCHANGE),
  },
  { name: 'rename EXCHANGE of links', run: fs => fs.rename('h1', 'd/x', RENAME.EXCHANGE) },
]

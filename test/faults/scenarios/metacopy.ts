/** Operations on a metacopy file, as the kernel creates it. */

import type { UnionFs } from '../../helpers/union.js'
import { needsRoot, type Scenario } from '../scenario.js'

export const metacopies: readonly Scenario[] = [
  { name: 'read', run: (fs: UnionFs) => fs.read('mc') },
  { name: 'chmod', run: (fs: UnionFs) => fs.chmod('mc', 0o640) },
  { name: 'write', run: (fs: UnionFs) => fs.write('mc', 'XY', 1) },
  { name: 'truncate to 0', run: (fs: UnionFs) => fs.truncate('mc', 0) },
  { name: 'truncate to 3', run: (fs: UnionFs) => fs.truncate('mc', 3) },
  { name: 'rename', run: (fs: UnionFs) => fs.rename('mc', 'ud/mc') },
  { name: 'unlink', run: (fs: UnionFs) => fs.unlink('mc') },
  { name: 'link', run: (fs: UnionFs) => fs.link('mc', 'mc2') },
].map(scenario => ({ ...scenario, name: `${scenario.name} a metacopy file`, in: needsRoot }))

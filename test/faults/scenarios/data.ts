/** The data of files. */

import { Attr } from '../../../src/overlay/ops.js'
import * as sys from '../../helpers/syscalls.js'
import type { UnionFs } from '../../helpers/union.js'
import { copyRange, needsRoot, opened, type Scenario } from '../scenario.js'

const { O } = sys

export const data: readonly Scenario[] = [
  ...['uf', 'f', 'f.cap', 'h1', 'sparse', 'd/x', 'f.ro'].flatMap(path => [
    { name: `read ${path}`, run: (fs: UnionFs) => fs.read(path) },
    { name: `open ${path} to write`, run: (fs: UnionFs) => opened(fs, path, O.RDWR, () => 0) },
    { name: `write ${path}`, writes: true as const, run: (fs: UnionFs) => fs.write(path, 'XY', 1) },
  ]),
  {
    name: 'write that drops set-id bits',
    writes: true,
    run: fs => opened(fs, 'f', O.RDWR, fh => fs.pwrite(fh, 'XY', 0, true)),
  },
  {
    name: 'late write to a capable file',
    writes: true,
    run: fs => opened(fs, 'f.cap', O.RDWR, fh => fs.pwrite(fh, 'XY', 0, false, true)),
    in: needsRoot,
  },
  {
    name: 'write while open for reading',
    writes: true,
    begin: fs => fs.open('f', O.RDONLY),
    run: fs => fs.write('f', 'XY'),
  },
  {
    name: 'fallocate',
    writes: true,
    run: fs => opened(fs, 'f', O.RDWR, fh => fs.ops.fallocate(fh, 0, 0, 5000)),
  },
  {
    name: 'punch a hole',
    writes: true,
    run: fs => opened(fs, 'sparse', O.RDWR, fh => fs.ops.fallocate(fh, 3, 65_536, 4096)),
  },
  { name: 'copy_file_range', writes: true, run: fs => copyRange(fs, 'f', 'uf') },
  { name: 'copy_file_range to a lower file', writes: true, run: fs => copyRange(fs, 'uf', 'd/x') },
  {
    name: 'lseek',
    run: fs =>
      opened(fs, 'sparse', O.RDONLY, fh => Math.min(0, Number(fs.ops.lseek(fh, 0, sys.SEEK.DATA)))),
  },
  {
    name: 'fsync',
    run: fs => opened(fs, 'f', O.RDWR, fh => fs.ops.fsync(fh, false)),
    options: { volatile: false },
  },
  { name: 'syncfs', run: fs => fs.run(() => fs.ops.syncfs()) },
  {
    name: 'write to a removed lower file',
    in: mode => mode !== 'noopen',
    run: async fs => {
      const handle = await fs.open('f', O.RDONLY)
      if (typeof handle === 'number') return handle
      const removed = await fs.unlink('f')
      if (removed < 0) {
        fs.ops.release(handle.fh)
        return removed
      }
      // Only the removal is visible: later changes of the file are lost with it.
      await fs.run(() => fs.ops.getattr(1, 0, new Attr()))
      fs.ops.release(handle.fh)
      return 0
    },
  },
]

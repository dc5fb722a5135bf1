/** scripts/lint-paths.mjs: what `npm run lint` refuses in paths that lead through descriptors. */

import t from 'tap'

const { check } = (await import(new URL('../../scripts/lint-paths.mjs', import.meta.url).href)) as {
  check: (file: string, text: string) => string[]
}

const REFUSED: [file: string, text: string][] = [
  ['src/overlay/a.ts', 'const path = `/proc/self/fd/${fd}/${name}`'],
  ['src/overlay/a.ts', "const path = '/proc/self/fd/' + fd + '/' + name"],
  ['src/cli/a.ts', 'openSync(`/dev/fd/${fd}`)'],
  ['src/fuse/a.ts', 'openSync(`/proc/${pid}/fd/${fd}`)'],
  ['src/fuse/a.ts', 'openSync(`/proc/thread-self/fd/${fd}`)'],
  ['src/overlay/a.ts', "import { fdPath } from '../sys/at.js'"],
  ['src/overlay/a.ts', "import { fdPath as it } from '../sys/at.js'"],
  ['src/overlay/a.ts', "import { openPath } from '../sys/at.js'"],
  ['src/overlay/a.ts', "import { procPath } from '../sys/scratch.js'"],
  ['src/sys/truncate.ts', "import { putProcName } from './scratch.js'"],
  ['src/sys/io.ts', 'c.truncate(path, size)'],
  ['src/sys/io.ts', "import { truncate } from './libc.js'"],
  ['src/sys/at.ts', 'c.chmod(path, mode)'],
  ['src/sys/at.ts', 'c.getxattr(path, name, value, size)'],
]

t.test('a path through a descriptor is for the wrappers alone', async t => {
  for (const [file, text] of REFUSED) {
    const [fault, ...more] = check(file, text)
    t.match(fault, `${file}:1: `, text)
    t.same(more, [])
  }
})

t.test('what opens nothing, and the wrappers, may', async t => {
  const allowed: [file: string, text: string][] = [
    ['src/cli/a.ts', 'readlinkSync(`/proc/self/fd/${fd}`)'],
    ['src/cli/a.ts', "readdirSync('/proc/self/fd')"],
    ['src/cli/a.ts', 'readFileSync(`/proc/self/fdinfo/${fd}`)'],
    ['src/cli/a.ts', '// as in /proc/self/fd/5/name'],
    ['src/sys/xattr.ts', "import { putProcName } from './scratch.js'\nc.lgetxattr(a, b, c, d)"],
    ['src/sys/truncate.ts', 'c.truncate(procPath, size)'],
  ]
  for (const [file, text] of allowed) t.same(check(file, text), [], text)
})

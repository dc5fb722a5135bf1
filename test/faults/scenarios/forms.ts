/** Other forms of whiteouts, and operations that depend on them. */

import type { Mode } from '../modes.js'
import type { Scenario } from '../scenario.js'

const operations: readonly Scenario[] = [
  { name: 'unlink f', run: fs => fs.unlink('f') },
  { name: 'unlink m/a', run: fs => fs.unlink('m/a') },
  { name: 'rmdir e', run: fs => fs.rmdir('e') },
  { name: 'create gone', run: fs => fs.create('gone', 0o644) },
  { name: 'mkdir m/w', run: fs => fs.mkdir('m/w', 0o755) },
  {
    name: 'create again',
    prepare: fs => fs.unlink('f'),
    run: fs => fs.create('f', 0o644),
  },
  {
    name: 'mkdir again',
    prepare: fs => fs.unlink('f'),
    run: fs => fs.mkdir('f', 0o755),
  },
  {
    name: 'link again',
    prepare: fs => fs.unlink('f'),
    run: fs => fs.link('uf', 'f'),
  },
  { name: 'rename f', run: fs => fs.rename('f', 'new') },
  { name: 'rename f over m/b', run: fs => fs.rename('f', 'm/b') },
  { name: 'rename d', run: fs => fs.rename('d', 'new') },
  { name: 'rename d to gone', run: fs => fs.rename('d', 'gone') },
  { name: 'rename ud over e', run: fs => fs.rename('ud', 'e') },
  { name: 'unlink d/h2', run: fs => fs.unlink('d/h2') },
]

export const forms: readonly Scenario[] = (['wh', 'xattr'] as const).flatMap(form =>
  operations.map(scenario => ({
    ...scenario,
    name: `${form}: ${scenario.name}`,
    options: { whiteout: form },
    in: (mode: Mode) => mode === 'cached' || mode === 'userns',
  })),
)

/**
 * Starting node and python: hundreds of modules are searched for in several directories, opened and
 * read.
 */

import * as fs from 'node:fs'
import { scaled, step, type LowerLayers, type Step, type Workload } from '../work.js'
import { expect, run } from './tools.js'

/** Packages of two modules each. */
const packages = (scale: number): number[] => [...Array(scaled(250, scale)).keys()]

/** Some lines for the engine to compile. */
const BODY = 40

const NODE: LowerLayers = {
  name: 'node-packages',
  count: 1,
  build(directory, scale) {
    const top = `${directory}/0`
    for (const n of packages(scale)) {
      const at = `${top}/node_modules/package${n}`
      fs.mkdirSync(`${at}/lib`, { recursive: true })
      fs.writeFileSync(`${at}/package.json`, `{"name":"package${n}","main":"lib"}\n`)
      fs.writeFileSync(`${at}/lib/index.js`, `exports.one = require('./part').one\n`)
      fs.writeFileSync(
        `${at}/lib/part.js`,
        `exports.one = 1\n${Array.from({ length: BODY }, (_, line) => `exports.f${line} = x => x + ${line}\n`).join('')}`,
      )
    }
    // Node also looks for it in all parent directories, which are outside of the benchmark.
    fs.writeFileSync(`${top}/package.json`, '{"type":"commonjs"}\n')
    const imports = packages(scale).map(n => `sum += require('package${n}').one\n`)
    fs.writeFileSync(`${top}/main.js`, `let sum = 0\n${imports.join('')}console.log(sum)\n`)
  },
}

/** As installed packages: with their compiled form next to the source. */
const PYTHON: LowerLayers = {
  name: 'python-packages',
  count: 1,
  build(directory, scale) {
    const top = `${directory}/0`
    for (const n of packages(scale)) {
      const at = `${top}/package${n}`
      fs.mkdirSync(at)
      fs.writeFileSync(`${at}/__init__.py`, 'from .part import one\n')
      fs.writeFileSync(
        `${at}/part.py`,
        `one = 1\n${Array.from({ length: BODY }, (_, line) => `def f${line}(x): return x + ${line}\n`).join('')}`,
      )
    }
    const imports = packages(scale).map(n => `import package${n}; sum += package${n}.one\n`)
    fs.writeFileSync(`${top}/main.py`, `sum = 0\n${imports.join('')}print(sum)\n`)
    run(['python3', '-m', 'compileall', '-q', top])
  },
}

const start =
  (programOf: () => string, main: string): Step['prepare'] =>
  ({ root, scale }) => {
    const program = programOf()
    const count = packages(scale).length
    return () => {
      expect(run([program, `${root}/${main}`]), count)
      return 2 * count
    }
  }

/** The interpreter itself, because `python3` may be a wrapper script. */
const python = (): string => run(['python3', '-c', 'import sys; print(sys.executable)']).trim()

const startNode = start(() => process.execPath, 'main.js')
const startPython = start(python, 'main.py')

export const startUp: Workload[] = [
  {
    name: 'start-node',
    lowers: NODE,
    steps: [
      step('start', 'node starts and requires 500 modules', startNode),
      step('again', 'node starts again', startNode),
    ],
  },
  {
    name: 'start-python',
    lowers: PYTHON,
    programs: ['python3'],
    steps: [
      step('start', 'python starts and imports 500 modules', startPython),
      step('again', 'python starts again', startPython),
    ],
  },
]

/** npm ci without a network: packages are unpacked from npm's cache into node_modules. */

import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { scaled, step, type LowerLayers, type Step, type Workload } from '../work.js'
import { run } from './tools.js'

const MODULES = 25
const packages = (scale: number): string[] =>
  Array.from({ length: scaled(100, scale) }, (_, n) => `package${n}`)

const npm = (cache: string, cwd: string, ...args: string[]): void => {
  const quiet = ['--no-audit', '--no-fund', '--no-update-notifier', '--logs-max=0']
  // The file does not exist, so no user settings are used.
  const own = ['--offline', `--cache=${cache}`, `--userconfig=${cache}/none`]
  run(['npm', ...args, ...own, ...quiet, '--loglevel=error'], { cwd })
}

/** Packs one package as `npm pack` does. Returns the path of the archive. */
const pack = (directory: string, name: string): string => {
  fs.mkdirSync(`${directory}/package/lib`, { recursive: true })
  fs.writeFileSync(`${directory}/package/package.json`, JSON.stringify({ name, version: '1.0.0' }))
  for (let n = 0; n < MODULES; n++)
    fs.writeFileSync(
      `${directory}/package/lib/module${n}.js`,
      `exports.${name} = ${n}\n`.repeat(50),
    )
  const archive = `${directory}/${name}.tgz`
  run(['tar', '-czf', archive, '-C', directory, 'package'])
  return archive
}

const integrityOf = (archive: string): string =>
  `sha512-${createHash('sha512').update(fs.readFileSync(archive)).digest('base64')}`

/**
 * A project with a lock file, and a cache with the archives under the digests of the lock file. npm
 * looks there first, so it makes no request to the registry's address.
 */
const PROJECT: LowerLayers = {
  name: 'npm-project',
  count: 1,
  build(directory, scale) {
    const top = `${directory}/0`
    const packing = `${directory}/packing`
    fs.mkdirSync(`${top}/project`)
    const archives = packages(scale).map(name => [name, pack(packing, name)] as const)
    npm(`${top}/cache`, packing, 'cache', 'add', ...archives.map(([, archive]) => archive))
    const dependencies = Object.fromEntries(archives.map(([name]) => [name, '1.0.0']))
    const project = { name: 'project', version: '1.0.0', dependencies }
    const locked = archives.map(([name, archive]) => [
      `node_modules/${name}`,
      {
        version: '1.0.0',
        resolved: `https://registry.npmjs.org/${name}/-/${name}-1.0.0.tgz`,
        integrity: integrityOf(archive),
      },
    ])
    const lock = {
      ...project,
      lockfileVersion: 3,
      packages: { '': project, ...(Object.fromEntries(locked) as object) },
    }
    fs.writeFileSync(`${top}/project/package.json`, JSON.stringify(project))
    fs.writeFileSync(`${top}/project/package-lock.json`, JSON.stringify(lock))
    fs.rmSync(packing, { recursive: true })
  },
}

const install: Step['prepare'] = ({ root, scale }) => {
  const names = packages(scale)
  const modules = `${root}/project/node_modules`
  return () => {
    npm(`${root}/cache`, `${root}/project`, 'ci')
    for (const name of names) {
      const found = fs.readdirSync(`${modules}/${name}/lib`).length
      if (found !== MODULES) throw new Error(`${name} has ${found} files of ${MODULES}`)
    }
    return names.length * (MODULES + 1)
  }
}

export const npmInstall: Workload = {
  name: 'npm',
  lowers: PROJECT,
  programs: ['npm', 'tar'],
  runs: 2,
  steps: [step('ci', 'npm ci of 100 packages from the cache', install)],
}

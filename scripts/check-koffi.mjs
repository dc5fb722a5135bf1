// Runs before an installation. If npm leaves optional packages out (--omit=optional), koffi has no
// binary. Its own script then looks for CMake and fails with an error that names no solution. This
// script prints the solution in one line.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname } from 'node:path'

const require = createRequire(import.meta.url)
const omits = (process.env.npm_config_omit ?? '').split(/\s+/).includes('optional')
const binary = `@koromix/koffi-${process.platform}-${process.arch}`

const version = () => {
  try {
    const path = `${dirname(require.resolve('koffi'))}/package.json`
    return JSON.parse(readFileSync(path, 'utf8')).version
  } catch {
    return undefined // koffi is not installed yet
  }
}

const hasBinary = () => {
  try {
    createRequire(require.resolve('koffi')).resolve(binary)
    return true
  } catch (error) {
    return error.code !== 'MODULE_NOT_FOUND'
  }
}

const koffiVersion = omits ? version() : undefined
if (koffiVersion !== undefined && !hasBinary() && spawnSync('cmake', ['--version']).status !== 0) {
  console.error(
    `tsoverlay: koffi's binary is an optional package, and --omit=optional leaves it out: add it, as in: npm install --omit=optional tsoverlay ${binary}@${koffiVersion}`,
  )
  process.exit(1)
}

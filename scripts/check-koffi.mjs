// Before an installation: where npm leaves optional packages out (--omit=optional), koffi has no
// binary, and its own script then looks for CMake and ends in an error that does not say what to
// do. This one says it in a line.
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
    return undefined // not there yet: nothing can be said
  }
}

const isThere = () => {
  try {
    createRequire(require.resolve('koffi')).resolve(binary)
    return true
  } catch (error) {
    return error.code !== 'MODULE_NOT_FOUND'
  }
}

const wanted = omits ? version() : undefined
if (wanted !== undefined && !isThere() && spawnSync('cmake', ['--version']).status !== 0) {
  console.error(
    `tsoverlay: koffi's binary is an optional package, and --omit=optional leaves it out: add it, as in: npm install --omit=optional tsoverlay ${binary}@${wanted}`,
  )
  process.exit(1)
}

/** A copy of the program, for tests of missing packages. */

import * as fs from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

/**
 * @param top where to create the copy
 * @param without a package that the copy lacks
 * @returns the copy's directory, with dist/ and node_modules/
 */
export const install = (top: string, without?: string): string => {
  const copy = `${top}/installed`
  fs.mkdirSync(`${copy}/node_modules`, { recursive: true })
  fs.cpSync(`${root}/dist`, `${copy}/dist`, { recursive: true })
  fs.copyFileSync(`${root}/package.json`, `${copy}/package.json`)
  for (const name of fs.readdirSync(`${root}/node_modules`)) {
    if (name !== without)
      fs.symlinkSync(`${root}/node_modules/${name}`, `${copy}/node_modules/${name}`)
  }
  return copy
}

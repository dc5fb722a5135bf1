/** The program, installed elsewhere: for tests of what is missing there. */

import * as fs from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

/**
 * @param top where to put it
 * @param without a package that is not installed there
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

/** Sources for a process of a test's own, without the loader of the tests. */

import { fileURLToPath, pathToFileURL } from 'node:url'

import { buildSync } from 'esbuild'
import type { Test } from 'tap'

/** The URL of a file that has a module of src/ and whatever that imports. */
export const bundle = (t: Test, source: string): string => {
  const outfile = `${t.testdir()}/${source.replaceAll('/', '-')}.mjs`
  buildSync({
    entryPoints: [fileURLToPath(new URL(`../../src/${source}.ts`, import.meta.url))],
    outfile,
    bundle: true,
    format: 'esm',
    platform: 'node',
    packages: 'external',
  })
  return pathToFileURL(outfile).href
}

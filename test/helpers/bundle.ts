/** Bundles of sources, for processes that a test starts without its module loader. */

import { fileURLToPath, pathToFileURL } from 'node:url'

import { buildSync } from 'esbuild'
import type { Test } from 'tap'

/** @returns the URL of a bundle of a module of src/ with its imports */
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

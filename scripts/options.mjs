// Generates docs/OPTIONS.md, the man pages and the shell completions from the table of options
// (src/config/table.ts) and the declarations of the commands (src/cli/commands). It needs no build:
// esbuild bundles the sources in memory.
//
// Usage: node scripts/options.mjs            writes the files (`npm run generate`)
//        node scripts/options.mjs --check    names each file that is not up to date; the exit status
//                                            is then 1 (part of `npm run lint`)

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { compileFunction } from 'node:vm'

import { build } from 'esbuild'

import { bash, fish, zsh } from './options/completion.mjs'
import { helperPage, programPage } from './options/man.mjs'
import { optionsDocument } from './options/markdown.mjs'
import { modelOf } from './options/model.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

const ENTRY = `
export { rows, table } from './src/config/table.ts'
export { usageOf } from './src/config/help.ts'
export { createProgram } from './src/cli/commands/create-program.ts'
export { ExitCode } from './src/cli/exit-codes.ts'
`

const load = async () => {
  const { outputFiles } = await build({
    stdin: { contents: ENTRY, resolveDir: ROOT, loader: 'ts' },
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'cjs',
    packages: 'external',
    write: false,
    logLevel: 'warning',
  })
  const module = { exports: {} }
  const run = compileFunction(outputFiles[0].text, ['require', 'module', 'exports'])
  run(createRequire(`${ROOT}scripts/options.mjs`), module, module.exports)
  return module.exports
}

/** The generated files: their paths and texts. */
export const generate = async () => {
  const model = modelOf(await load())
  return {
    'docs/OPTIONS.md': optionsDocument(model),
    'man/tsoverlay.1': programPage(model),
    'man/mount.tsoverlay.8': helperPage(model),
    'completion/tsoverlay.bash': bash(model),
    'completion/_tsoverlay': zsh(model),
    'completion/tsoverlay.fish': fish(model),
  }
}

const read = path => {
  try {
    return readFileSync(`${ROOT}${path}`, 'utf8')
  } catch {
    return ''
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [path, text] of Object.entries(await generate())) {
    if (read(path) === text) continue
    if (process.argv.includes('--check')) {
      console.error(`${path}: not up to date; run npm run generate`)
      process.exitCode = 1
      continue
    }
    mkdirSync(dirname(`${ROOT}${path}`), { recursive: true })
    writeFileSync(`${ROOT}${path}`, text)
  }
}

/**
 * Builds dist/: declarations by tsc, and what runs by esbuild. Every program and every thread is one file,
 * since much of the time in which a mount is made goes into loading modules, one by one. All but the library are
 * CommonJS: the loader of ES modules takes a thread another 40 ms to start.
 */

import { execFile } from 'node:child_process'
import { chmod, copyFile, readFile, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
const dist = `${root}dist`
const tsc = `${root}node_modules/typescript/bin/tsc`

const declarations = () =>
  promisify(execFile)(process.execPath, [tsc, '-p', root, '--emitDeclarationOnly'])

const common = {
  absWorkingDir: root,
  outdir: dist,
  bundle: true,
  platform: 'node',
  target: 'node20',
  sourcemap: true,
  sourcesContent: false,
  logLevel: 'warning',
}

const library = () =>
  build({
    ...common,
    entryPoints: { 'lib/index': 'src/index.ts' },
    format: 'esm',
    packages: 'external',
  })

/** A file of its own also for those who import it, late or never. */
const programApart = {
  name: 'program apart',
  setup: ({ onResolve }) =>
    onResolve({ filter: /\/program\.js$/ }, () => ({ path: './program.cjs', external: true })),
}

const programs = () =>
  build({
    ...common,
    // A folder deep, as the sources: what lies beside `import.meta.url` begins with `../` in either.
    entryPoints: {
      'cli/main': 'src/cli/main.ts',
      'cli/program': 'src/cli/program.ts',
      'cli/server': 'src/cli/server.ts',
      'fuse-native/process': 'src/fuse-native/process.ts',
      'fuse/worker-main': 'src/fuse/worker-main.ts',
      'overlay/io-worker': 'src/overlay/io-worker.ts',
    },
    outExtension: { '.js': '.cjs' },
    format: 'cjs',
    // These have files beside their code, or are loaded by few.
    external: ['koffi', 'pino', 'pino-pretty'],
    plugins: [programApart],
    // By require(), too.
    supported: { 'dynamic-import': false },
    define: { 'import.meta.url': 'importMetaUrl' },
    banner: {
      js: "'use strict'\nconst importMetaUrl = require('node:url').pathToFileURL(__filename).href",
    },
    metafile: true,
  })

/** The licences of the packages that became part of the programs. */
const licences = async ({ metafile }) => {
  const names = Object.keys(metafile.inputs).map(
    path => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1],
  )
  const texts = [...new Set(names)].filter(Boolean).map(licenceOf)
  await writeFile(`${dist}/LICENSES.txt`, (await Promise.all(texts)).join('\n'))
}

const licenceOf = async name => {
  const folder = `${root}node_modules/${name}`
  const { version } = JSON.parse(await readFile(`${folder}/package.json`, 'utf8'))
  const text = await readFile(`${folder}/LICENSE`, 'utf8').catch(() =>
    readFile(`${folder}/LICENSE.md`, 'utf8'),
  )
  return `${name} ${version}\n\n${text}`
}

await rm(dist, { recursive: true, force: true })
try {
  await Promise.all([declarations(), library(), programs().then(licences)])
  await copyFile(`${root}src/cli/tsoverlay.sh`, `${dist}/cli/tsoverlay`)
  await Promise.all(['main.cjs', 'tsoverlay'].map(name => chmod(`${dist}/cli/${name}`, 0o755)))
} catch (error) {
  console.error(error.stdout ?? error.message)
  process.exitCode = 1
}

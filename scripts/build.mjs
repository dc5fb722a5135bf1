/**
 * Builds dist/: the library's declarations, in one file, and what runs by esbuild. Every program
 * and every thread is one file, since much of the time in which a mount is made goes into loading
 * modules, one by one. All but the library are CommonJS: the loader of ES modules takes a thread
 * another 40 ms to start.
 */

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, copyFile, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
const dist = `${root}dist`

/** In a process of its own, since it takes as long as all the rest. */
const declarations = () =>
  promisify(execFile)(process.execPath, [`${root}scripts/declarations.mjs`])

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

/** Files of their own, which others run (src/sys/code-cache.ts). */
const filesApart = {
  name: 'files apart',
  setup: ({ onResolve }) =>
    onResolve({ filter: /\/(program|worker)\.js$/ }, ({ path }) => ({
      path: path.replace(/js$/, 'cjs'),
      external: true,
    })),
}

const programs = () =>
  build({
    ...common,
    // src/sys/entry-points.ts finds them there.
    entryPoints: {
      'cli/main': 'src/cli/main.ts',
      'cli/program': 'src/cli/program.ts',
      'cli/server': 'src/cli/server.ts',
      'fuse-native/process': 'src/fuse-native/process.ts',
      'server/worker': 'src/server/worker.ts',
      'server/worker-main': 'src/server/worker-main.ts',
      'overlay/jobs-worker': 'src/overlay/jobs/worker.ts',
    },
    outExtension: { '.js': '.cjs' },
    format: 'cjs',
    // These have files beside their code, or are loaded by few.
    external: ['koffi', 'pino', 'pino-pretty'],
    plugins: [filesApart],
    // By require(), too.
    supported: { 'dynamic-import': false },
    // As src/sys/code-cache.ts reads it.
    charset: 'ascii',
    define: { 'import.meta.url': 'importMetaUrl', BUILD_HASH: 'buildHash' },
    banner: {
      js: `'use strict'\nconst buildHash = "${HASH}"\nconst importMetaUrl = require('node:url').pathToFileURL(__filename).href`,
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
  const directory = `${root}node_modules/${name}`
  const { version } = JSON.parse(await readFile(`${directory}/package.json`, 'utf8'))
  const text = await readFile(`${directory}/LICENSE`, 'utf8').catch(() =>
    readFile(`${directory}/LICENSE.md`, 'utf8'),
  )
  return `${name} ${version}\n\n${text}`
}

/**
 * What stands for the build's hash until that is known; as long as it, so that source maps stay
 * right.
 */
const HASH = '@@@BUILD-HASH@@@'

/**
 * Writes the hash of all that was built into the program: a server serves clients of its own build
 * alone. The library has no server.
 */
const writeHash = async () => {
  const files = (await readdir(dist, { recursive: true })).filter(name => /\.(cjs|js)$/.test(name))
  const told = [...files.filter(name => name.endsWith('.cjs')), 'cli/tsoverlay']
  const hash = createHash('sha256')
  for (const name of [...files, 'cli/tsoverlay'].toSorted((a, b) => (a < b ? -1 : 1)))
    hash.update(name).update(await readFile(`${dist}/${name}`))
  const digest = hash.digest('hex').slice(0, HASH.length)
  for (const name of told) {
    const text = await readFile(`${dist}/${name}`, 'utf8')
    await writeFile(`${dist}/${name}`, text.replaceAll(HASH, digest))
  }
}

await rm(dist, { recursive: true, force: true })
try {
  await Promise.all([declarations(), library(), programs().then(licences)])
  await copyFile(`${root}src/cli/tsoverlay.sh`, `${dist}/cli/tsoverlay`)
  await writeHash()
  await Promise.all(['main.cjs', 'tsoverlay'].map(name => chmod(`${dist}/cli/${name}`, 0o755)))
} catch (error) {
  console.error(error.stderr || error.message)
  process.exitCode = 1
}

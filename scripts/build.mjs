/**
 * Builds dist/: the library's declarations in one file, and the programs by esbuild. Every program
 * and every thread is one file, because loading modules one by one takes much of the time of a
 * mount. Everything but the library is CommonJS, because the ES module loader delays the start of
 * each thread.
 */

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmod, copyFile, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
const dist = `${root}dist`

/** It runs in a separate process, because it takes as long as everything else. */
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

/** Bundles of their own, which other bundles load (src/sys/code-cache.ts). */
const separateBundles = {
  name: 'separate bundles',
  setup: ({ onResolve }) =>
    onResolve({ filter: /\/(program|worker)\.js$/ }, ({ path }) => ({
      path: path.replace(/js$/, 'cjs'),
      external: true,
    })),
}

const programs = () =>
  build({
    ...common,
    // src/sys/entry-points.ts expects these paths.
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
    // These packages load files next to their code, or are rarely used.
    external: ['koffi', 'pino', 'pino-pretty'],
    plugins: [separateBundles],
    // import() becomes require(), too.
    supported: { 'dynamic-import': false },
    // src/sys/code-cache.ts expects this.
    charset: 'ascii',
    define: { 'import.meta.url': 'importMetaUrl', BUILD_HASH: 'buildHash' },
    banner: {
      js: `'use strict'\nconst buildHash = "${HASH}"\nconst importMetaUrl = require('node:url').pathToFileURL(__filename).href`,
    },
    metafile: true,
  })

/** Writes the licences of the packages that are bundled into the programs. */
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
 * A placeholder for the build's hash. It has the length of the hash, so that source maps stay
 * valid.
 */
const HASH = '@@@BUILD-HASH@@@'

/**
 * Writes the hash of all built files into the programs, because a server serves only clients of its
 * own build. The library contains no server.
 */
const writeHash = async () => {
  const files = (await readdir(dist, { recursive: true })).filter(name => /\.(cjs|js)$/.test(name))
  const stamped = [...files.filter(name => name.endsWith('.cjs')), 'cli/tsoverlay']
  const hash = createHash('sha256')
  for (const name of [...files, 'cli/tsoverlay'].toSorted((a, b) => (a < b ? -1 : 1)))
    hash.update(name).update(await readFile(`${dist}/${name}`))
  const digest = hash.digest('hex').slice(0, HASH.length)
  for (const name of stamped) {
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

/**
 * Builds dist/: declarations by tsc, and what runs by esbuild. Every program and every thread is one file,
 * since much of the time in which a mount is made goes into loading modules, one by one.
 */

import { execFile } from 'node:child_process'
import { chmod, copyFile, rm } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
const dist = `${root}dist`
const tsc = `${root}node_modules/typescript/bin/tsc`

const declarations = () =>
  promisify(execFile)(process.execPath, [tsc, '-p', root, '--emitDeclarationOnly'])

const programs = () =>
  build({
    absWorkingDir: root,
    // A folder deep, as the sources: what lies beside `import.meta.url` begins with `../` in either.
    entryPoints: {
      'lib/index': 'src/index.ts',
      'cli/main': 'src/cli/main.ts',
      'cli/program': 'src/cli/program.ts',
      'cli/server': 'src/cli/server.ts',
      'fuse-native/process': 'src/fuse-native/process.ts',
      'fuse/worker-main': 'src/fuse/worker-main.ts',
      'overlay/io-worker': 'src/overlay/io-worker.ts',
    },
    outdir: dist,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    packages: 'external',
    // A file of its own also for those who import it, late or never.
    external: ['*/program.js'],
    sourcemap: true,
    sourcesContent: false,
    logLevel: 'warning',
  })

await rm(dist, { recursive: true, force: true })
try {
  await Promise.all([declarations(), programs()])
  await copyFile(`${root}src/cli/tsoverlay.sh`, `${dist}/cli/tsoverlay`)
  await Promise.all(['main.js', 'tsoverlay'].map(name => chmod(`${dist}/cli/${name}`, 0o755)))
} catch (error) {
  console.error(error.stdout ?? error.message)
  process.exitCode = 1
}

// Writes dist/index.d.ts: all types of the library in one file. Part of the build.
import { mkdir, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

import { generateDtsBundle } from 'dts-bundle-generator'

const root = fileURLToPath(new URL('..', import.meta.url))

// A consumer that compiles for an older language library may not have AsyncDisposable.
const head = '/// <reference lib="esnext.disposable" />\n\n'

const [text] = generateDtsBundle(
  [
    {
      filePath: `${root}src/index.ts`,
      output: { noBanner: true, exportReferencedTypes: false },
    },
  ],
  { preferredConfigPath: `${root}tsconfig.json` },
)
await mkdir(`${root}dist`, { recursive: true })
await writeFile(`${root}dist/index.d.ts`, head + text)

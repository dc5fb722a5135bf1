// Checks that imports of src/ point one way: a file imports from its own row of LAYERS or from a row
// above it. Imports of types count. No files import each other in a circle, types included. Part of
// `npm run lint`.

import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../src', import.meta.url))

/** Files and directories, the lowest first. A file belongs to the longest entry that leads to it. */
const LAYERS = [
  ['errors', 'log', 'sys'],
  // The contract between the union and its transports, and what a union is made of.
  ['overlay/ops', 'overlay/options'],
  ['config'],
  ['host'],
  ['overlay/jobs'],
  ['overlay/owner'],
  ['overlay/layer'],
  ['overlay/inode'],
  ['overlay/copy-up'],
  ['overlay/file'],
  ['overlay/namei'],
  ['overlay/open-union'],
  ['overlay/overlay'],
  ['fuse/protocol'],
  ['fuse/device'],
  ['fuse/session'],
  ['fuse/mount'],
  // What every transport takes and gives.
  ['server/messages', 'server/transport'],
  ['fuse-native'],
  ['server'],
  ['resident'],
  ['index', 'cli'],
]

const rank = new Map(LAYERS.flatMap((row, index) => row.map(entry => [entry, index])))

/** @returns the index in LAYERS, or undefined */
const rankOf = file => {
  for (let at = file; at !== '.'; at = path.posix.dirname(at)) {
    const found = rank.get(at)
    if (found !== undefined) return found
  }
  return undefined
}

/** @returns what a source imports from src/, without extensions */
export const importsOf = (file, text) =>
  [...text.matchAll(/(?:\bfrom|\bimport\()\s*'(\.[^']+)\.js'/g)].map(([, specifier]) =>
    path.posix.join(path.posix.dirname(file), specifier),
  )

/**
 * @param sources texts by path below src/, without extensions
 * @returns one line for each fault
 */
export const check = sources => {
  const faults = []
  const graph = new Map()
  for (const [file, text] of sources) {
    const own = rankOf(file)
    if (own === undefined) faults.push(`${file}: its directory is not in LAYERS`)
    const imports = importsOf(file, text)
    graph.set(file, imports)
    for (const other of imports) {
      const its = rankOf(other)
      if (own !== undefined && its !== undefined && its > own)
        faults.push(`${file} imports ${other}, which lies above it`)
    }
  }
  for (const circle of circlesOf(graph)) faults.push(`a circle: ${circle.join(' -> ')}`)
  return faults
}

/** @returns one circle for each group of files that import each other */
const circlesOf = graph => {
  const circles = []
  const state = new Map()
  const trail = []
  const visit = file => {
    state.set(file, 'open')
    trail.push(file)
    for (const other of graph.get(file) ?? []) {
      if (state.get(other) === 'open') circles.push([...trail.slice(trail.indexOf(other)), other])
      else if (!state.has(other)) visit(other)
    }
    trail.pop()
    state.set(file, 'done')
  }
  for (const file of graph.keys()) if (!state.has(file)) visit(file)
  return circles
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const files = readdirSync(ROOT, { recursive: true }).filter(file => file.endsWith('.ts'))
  const faults = check(
    new Map(files.map(file => [file.slice(0, -3), readFileSync(`${ROOT}/${file}`, 'utf8')])),
  )
  for (const fault of faults) console.error(fault)
  process.exitCode = faults.length === 0 ? 0 : 1
}

// Finds code that could lead a system call out of the layers: paths through /proc/self/fd, and
// calls that follow the last component of a path. Only the wrappers in src/sys may contain them.
// Part of `npm run lint`.
//
// Usage: node scripts/lint-paths.mjs (no arguments). It prints FILE:LINE: MESSAGE for each fault; the exit status
// is 1 if it finds a fault.

import { readdirSync, readFileSync } from 'node:fs'
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** The files that may import a name, and the reason for the restriction. */
const IMPORTS = {
  procPath: {
    users: ['at', 'lease', 'setattr', 'truncate', 'xattr'].map(file => `src/sys/${file}.ts`),
    reason: 'a path for the wrappers in src/sys alone',
  },
  putProcFd: {
    users: ['at', 'lease', 'setattr', 'truncate', 'xattr'].map(file => `src/sys/${file}.ts`),
    reason: 'the wrappers in src/sys alone follow a magic link',
  },
  putProcName: {
    users: ['src/sys/xattr.ts'],
    reason: 'only for calls that do not follow the last component (l*xattr)',
  },
  fdPath: {
    users: ['src/overlay/layer/open-regular.ts'],
    reason: 'the object may have been replaced: take its descriptor (and check its type)',
  },
  openPath: {
    users: [
      'src/overlay/open-union.ts',
      'src/overlay/layer/open-regular.ts',
      'src/fuse/mount/mount.ts',
      'src/server/served-union.ts',
    ],
    reason: 'only for paths which the administrator gave, and /dev: it follows symlinks',
  },
  statPath: { users: [], reason: 'only for paths which the administrator gave' },
}

/**
 * libc functions that follow the last component. Their path must be a whole magic link,
 * /proc/self/fd/N.
 */
const FOLLOWING = {
  truncate: ['src/sys/truncate.ts'],
  chmod: ['src/sys/setattr.ts'],
  getxattr: ['src/sys/xattr.ts'],
  setxattr: ['src/sys/xattr.ts'],
  listxattr: ['src/sys/xattr.ts'],
  removexattr: ['src/sys/xattr.ts'],
}

/** The files that may contain such a path in a string. */
const TEXTS = ['src/sys/scratch.ts', 'src/sys/at.ts', 'src/sys/descriptors.ts']
/** Calls that only read a link or list a directory, and open nothing. */
const HARMLESS = ['readlinkSync', 'readdirSync', 'statSync', 'listDirectory']
const DESCRIPTORS = /^(\/proc\/([^/]*)\/(task\/[^/]*\/)?|\/dev\/)fd(\/|$)/

/** The text of a string or template; each part that is known only at run time becomes `?`. */
const textOf = node => {
  if (ts.isStringLiteralLike(node)) return node.text
  if (!ts.isTemplateExpression(node)) return null
  return node.head.text + node.templateSpans.map(span => `?${span.literal.text}`).join('')
}

const calledName = node =>
  ts.isCallExpression(node)
    ? ts.isPropertyAccessExpression(node.expression)
      ? node.expression.name.text
      : node.expression.getText()
    : ''

/**
 * Finds the faults in a source file.
 *
 * @param {string} file its path relative to the repository
 * @param {string} text
 * @returns {string[]}
 */
export const check = (file, text) => {
  const faults = []
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  const report = (node, message) => {
    const { line } = source.getLineAndCharacterOfPosition(node.getStart())
    faults.push(`${file}:${line + 1}: ${message}`)
  }
  const visit = node => {
    const path = textOf(node)
    if (path !== null && DESCRIPTORS.test(path) && !TEXTS.includes(file))
      if (!HARMLESS.includes(calledName(node.parent)))
        report(node, `${path}: only the wrappers in src/sys build paths through a descriptor`)
    if (ts.isImportSpecifier(node)) {
      const name = (node.propertyName ?? node.name).text
      const rule = Object.hasOwn(IMPORTS, name) ? IMPORTS[name] : undefined
      if (rule !== undefined && !rule.users.includes(file)) report(node, `${name}: ${rule.reason}`)
    }
    const isLibc =
      ts.isPropertyAccessExpression(node) && node.expression.getText() === 'c'
        ? node.name.text
        : ts.isImportSpecifier(node) && importedFrom(node).endsWith("/libc.js'")
          ? (node.propertyName ?? node.name).text
          : ''
    if (Object.hasOwn(FOLLOWING, isLibc) && !FOLLOWING[isLibc].includes(file))
      report(node, `${isLibc}(2) follows the last component of its path`)
    ts.forEachChild(node, visit)
  }
  visit(source)
  return faults
}

const importedFrom = node => node.parent.parent.parent.moduleSpecifier.getText()

const sources = () =>
  readdirSync(`${ROOT}src`, { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.ts'))
    .map(name => `src/${name}`)

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const faults = sources().flatMap(file =>
    check(relative('.', file), readFileSync(`${ROOT}${file}`, 'utf8')),
  )
  for (const fault of faults) console.error(fault)
  process.exitCode = faults.length === 0 ? 0 : 1
}

/** The table of options, and everything that is generated from it. */

import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

import type { Command } from 'commander'
import t from 'tap'

import { createProgram } from '../../../src/cli/commands/create-program.js'
import { checkMountOptions } from '../../../src/config/check-options.js'
import { mountOptionsHelp, usageOf } from '../../../src/config/help.js'
import { parseMountOptions } from '../../../src/config/options.js'
import { rows, type Assert, type Same, type TableRow } from '../../../src/config/table.js'
import { MountError } from '../../../src/errors.js'
import type { MountOptions } from '../../../src/server/mount.js'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))
const text = (path: string): string => readFileSync(`${ROOT}${path}`, 'utf8')

const parse = (item = '') => parseMountOptions([item], '/', 0)

const SAMPLES: Readonly<Record<string, string>> = {
  ranges: '0:1000:1',
  id: '7',
  seconds: '7',
  bytes: '7',
}

/** A value that the option takes. */
const sampleOf = ({ value }: TableRow): string | undefined => {
  if (value === 'none') return undefined
  return typeof value === 'string' ? (SAMPLES[value] ?? '/a') : value.at(-1)
}
const itemOf = (row: TableRow, name: string): string => {
  const value = sampleOf(row)
  return value === undefined ? name : `${name}=${value}`
}

/** The rows that `tsoverlay mount -o` takes, and whose names are completed. */
const offered = rows.filter(({ fate }) =>
  ['set', 'checked', 'flag', 'fstab', 'remount'].includes(fate),
)

t.test('a name, or a key, is in one row', async t => {
  const names = rows.flatMap((row): readonly string[] => row.names)
  t.equal(new Set(names).size, names.length)
  const keys = rows.flatMap(row => ('key' in row ? [row.key] : []))
  t.equal(new Set(keys).size, keys.length)
})

t.test('every option is parsed', async t => {
  const none = JSON.stringify(parse())
  for (const row of rows) {
    for (const name of row.names) {
      const item = itemOf(row, name)
      if (row.fate === 'wrong') {
        t.throws(() => parse(item), { name: 'MountError', option: name }, item)
        continue
      }
      const isIgnored = row.fate === 'remount' || row.fate === 'not offered'
      t.same(parse(item).ignored, isIgnored ? [item] : [], item)
      if (row.fate === 'not offered')
        for (const allowed of row.allowed) t.same(parse(`${name}=${allowed}`).ignored, [])
      if (row.fate === 'set') {
        const first = typeof row.value === 'string' ? item : `${name}=${row.value[0]}`
        const isSet = [item, first].some(one => JSON.stringify(parse(one)) !== none)
        t.ok(isSet, `${item} changes something`)
      }
    }
  }
})

t.test('defaults change nothing, and words that are not listed are errors', async t => {
  for (const row of rows) {
    const [name] = row.names
    if (name === undefined || typeof row.value === 'string') continue
    t.throws(() => parse(`${name}=nonsense`), MountError, name)
    if (!('default' in row) || name === 'log_level') continue
    t.ok(
      row.value.some(word => word === row.default),
      `${name}: ${row.default} is a word of it`,
    )
    t.same(parse(`${name}=${row.default}`), parse(), `${name}=${row.default}`)
  }
  t.equal(parse(`max_write=${parse().tuning.maxWrite}`).tuning.maxWrite, 1044480)
})

t.test('every key is known to the library', async t => {
  const base = { lower: '/l', mountpoint: '/m' }
  for (const row of rows) {
    if (!('key' in row)) continue
    t.throws(() => checkMountOptions({ ...base, [row.key]: Symbol('wrong') }), {
      name: 'MountError',
      option: row.key,
    })
  }
  t.throws(() => checkMountOptions({ ...base, uperdir: '/u' }), {
    name: 'MountError',
    option: 'uperdir',
  })
})

t.test('an unknown key is an error of types', async t => {
  const options: MountOptions = {
    lower: '/l',
    mountpoint: '/m',
    // @ts-expect-error no such key
    uperdir: '/u',
  }
  t.throws(() => checkMountOptions(options), { name: 'MountError', option: 'uperdir' })
  // @ts-expect-error a key that the table does not have
  type Missing = Assert<Same<keyof MountOptions | 'more', keyof MountOptions>>
  const never: Missing | undefined = undefined
  t.equal(never, undefined)
})

t.test('every option is documented', async t => {
  const document = text('docs/OPTIONS.md')
  const pages = ['man/tsoverlay.1', 'man/mount.tsoverlay.8'].map(text)
  const help = mountOptionsHelp()
  for (const row of rows) {
    for (const name of row.names) {
      t.match(document, new RegExp(`\`${name.replace('+', '\\+')}[=\`]`), `OPTIONS.md: ${name}`)
      for (const page of pages) t.ok(page.includes(`\\fB${name}`), `man: ${name}`)
      if (row.fate === 'set')
        t.ok(
          help.includes(`\n  ${usageOf(row)} `) || help.startsWith(`  ${name}`),
          `--help: ${name}`,
        )
    }
    if ('key' in row) t.ok(document.includes(`| \`${row.key}\` |`), `OPTIONS.md: ${row.key}`)
  }
  t.ok(Buffer.byteLength(document) <= 12 * 1024, 'at most 12 KiB')
  for (const paragraph of document.split('\n\n').filter(part => !part.startsWith('|'))) {
    const lines = paragraph.split('\n')
    t.ok(lines.length <= 5 && lines.every(line => line.length <= 120), String(lines[0]))
  }
})

/** The candidates for each of some command lines. */
const completeInBash = (lines: readonly string[]): string[][] => {
  const script = `source completion/tsoverlay.bash
for line; do
  COMP_LINE=$line COMP_POINT=\${#line}
  _tsoverlay
  (IFS=' '; printf '%s\\n' "\${COMPREPLY[*]}")
done`
  const out = execFileSync('bash', ['-c', script, 'bash', ...lines], {
    cwd: ROOT,
    encoding: 'utf8',
    env: { ...process.env, COMP_WORDBREAKS: ' \t\n"\'><=;|&(:' },
  })
  return out
    .trimEnd()
    .split('\n')
    .map(line => line.split(' '))
}

t.test('every option is completed', async t => {
  const others = ['completion/_tsoverlay', 'completion/tsoverlay.fish'].map(text)
  const [names = [], afterComma = []] = completeInBash([
    'tsoverlay mount -o ',
    'tsoverlay mount -f -o ro,noex',
  ])
  t.same(afterComma, ['ro,noexec'])
  const expected = offered.flatMap(row =>
    row.names.map(name => (['none', 'any'].includes(String(row.value)) ? name : `${name}=`)),
  )
  t.same(new Set(names), new Set(expected))
  for (const row of offered) {
    for (const name of row.names)
      for (const script of others)
        t.match(script, new RegExp(`'[*]?${name.replace('+', '\\+')}[=\\['][^']*`), name)
  }
  const withWords = offered.filter(({ value }) => typeof value !== 'string')
  const found = completeInBash(
    withWords.map(({ names: [name] }) => `tsoverlay mount -o ro,${name}=`),
  )
  withWords.forEach(({ value, names: [name] }, i) => t.same(found[i], value, String(name)))
})

const never = async (): Promise<void> => {}

t.test('every command and its options are documented and completed', async t => {
  const server = { start: never, stop: never, status: never }
  const actions = { mount: never, umount: never, ls: never, stats: never, which: never, top: never }
  const program = createProgram('1', { ...actions, server })
  const page = text('man/tsoverlay.1')
  const scripts = ['completion/_tsoverlay', 'completion/tsoverlay.fish'].map(text)
  const commands = program.commands.flatMap((one): [path: string, command: Command][] =>
    one.commands.length === 0 ? [['', one]] : one.commands.map(sub => [`${one.name()} `, sub]),
  )
  for (const [path, command] of commands) {
    const line = `${path}${command.name()}`
    t.match(page, new RegExp(`^\\.SS "${line}`, 'm'), line)
    const flags = command
      .createHelp()
      .visibleOptions(command)
      .flatMap(({ short, long }) => [short, long])
    const [candidates] = completeInBash([`tsoverlay ${line} -`])
    for (const flag of flags) {
      if (flag === undefined) continue
      t.ok(candidates?.includes(flag), `${line} ${flag}`)
      if (flag !== '--help' && flag !== '-h')
        t.ok(page.includes(flag.replaceAll('-', '\\-')), `man: ${line} ${flag}`)
      for (const script of scripts)
        t.ok(script.includes(flag.replace(/^--?/, '')), `${line} ${flag}`)
    }
  }
  const [top, sub, level] = completeInBash([
    'tsoverlay ',
    'tsoverlay server ',
    'tsoverlay mount --transport ',
  ])
  t.ok(program.commands.every(one => top?.includes(one.name())))
  t.same(sub, ['start', 'stop', 'status'])
  t.same(level, ['kernel', 'fuse-native'])
})

t.test('the generated files are up to date', async t => {
  const { status, stderr } = spawnSync(process.execPath, ['scripts/options.mjs', '--check'], {
    cwd: ROOT,
    encoding: 'utf8',
  })
  t.match({ status, stderr }, { status: 0, stderr: '' })
})

t.test('the man pages have no fault that groff sees', async t => {
  for (const page of ['man/tsoverlay.1', 'man/mount.tsoverlay.8']) {
    const { error, stderr } = spawnSync('groff', ['-man', '-ww', '-Tutf8', page], {
      cwd: ROOT,
      encoding: 'utf8',
    })
    if (error !== undefined) return t.comment('needs groff')
    t.equal(stderr, '')
  }
})

import { readFileSync } from 'node:fs'

import t from 'tap'

import { checkMountOptions } from '../../../src/config/check-options.js'
import { rows as tableRows } from '../../../src/config/table.js'
import { parseMountOptions } from '../../../src/config/options.js'
import {
  checkUnknown,
  distance,
  knownNames,
  nearest,
  type OnUnknown,
} from '../../../src/config/unknown-options.js'
import { MountError } from '../../../src/errors.js'

const text = (path: string): string =>
  readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8')

t.test('the distance of words', async t => {
  for (const [a, b, expected] of [
    ['', '', 0],
    ['', 'abc', 3],
    ['abc', 'abc', 0],
    ['uperdir', 'upperdir', 1],
    ['upperdirs', 'upperdir', 1],
    ['workdri', 'workdir', 1],
    ['lowrdri', 'lowerdir', 2],
    ['ca', 'abc', 3],
    ['kitten', 'sitting', 3],
  ] as const) {
    t.equal(distance(a, b), expected, `${a} ${b}`)
    t.equal(distance(b, a), expected, `${b} ${a}`)
  }
})

t.test('the most similar word', async t => {
  for (const [given, expected] of [
    ['redirectdir', 'redirect_dir'],
    ['redirect-dir', 'redirect_dir'],
    ['indx', 'index'],
    ['nodve', 'nodev'],
    ['metacopi', 'metacopy'],
    ['VOLATILE', 'volatile'],
    ['zzzzzzzz', undefined],
    ['q', undefined],
  ] as const) {
    t.equal(nearest(given, knownNames()), expected, given)
  }
})

t.test('every option that is read is known', async t => {
  for (const { fate, names } of tableRows)
    for (const name of names) t.equal(knownNames().includes(name), fate !== 'remount', name)
})

/** The treatment of an option, in the words of the table. */
const outcome = (item: string, onUnknown: OnUnknown): string => {
  try {
    // The layers come first, because an option may set one, too.
    const before = parseMountOptions(['lowerdir=/l,upperdir=/u0,workdir=/w0'], '/', 0)
    const parsed = parseMountOptions([`lowerdir=/l,upperdir=/u0,workdir=/w0,${item}`], '/', 0)
    const lines = [...checkUnknown(parsed.ignored, parsed.labels, onUnknown), ...parsed.warnings]
    if (lines.length > 0) return lines.every(line => line.includes(item)) ? 'a line' : lines.join()
    const { labels: _, ...effect } = parsed
    const { labels: _none, ...none } = before
    return JSON.stringify(effect) === JSON.stringify(none) ? 'accepted' : 'honoured'
  } catch (error) {
    if (!(error instanceof MountError)) throw error
    t.match(error.message, /^[^\n]+$/, 'one line')
    t.equal(error.option, item.split('=')[0])
    t.ok(error.message.startsWith(error.option ?? ''), error.message)
    return 'refused'
  }
}

/** Values that are the defaults: they are valid, and change nothing. */
const defaults = new Set(
  'redirect_dir=off index=on fsync=auto fsync=1 rw suid dev exec async symfollow atime diratime norelatime nostrictatime nolazytime'.split(
    ' ',
  ),
)

const rows = [
  ...text('docs/FOREIGN-OPTIONS.md').matchAll(
    /^\| +(`.*?) +\| +(.+?) +\| +(.+?) +\| +(.+?) +\|$/gm,
  ),
]

t.test('the table of docs/FOREIGN-OPTIONS.md', async t => {
  t.ok(rows.length > 30, `${rows.length} rows`)
  for (const [, options = '', command = '', without = '', library = ''] of rows) {
    for (const [, item = ''] of options.matchAll(/`([^`]+)`/g)) {
      const is = (onUnknown: OnUnknown): string => {
        const found = outcome(item, onUnknown)
        return found === 'accepted' && defaults.has(item) ? 'honoured' : found
      }
      t.equal(is('refuse'), command, `tsoverlay mount -o ${item}`)
      t.equal(is('tell'), without, `fuse-overlayfs -o ${item}`)
      const wrongValue = /::|^datadir|^fsync=strict/.test(item)
      const sloppily = command === 'refused' && !wrongValue
      if (sloppily) t.match(is('pass'), /^(a line|accepted)$/, `tsoverlay mount -s -o ${item}`)
      else t.equal(is('pass'), command, `tsoverlay mount -s -o ${item}`)
      // The library has the same name or another one for it.
      const [name = ''] = item.split('=')
      const key = /^`(\w+)`$/.exec(library)?.[1]
      const base = { lower: '/l', mountpoint: '/m' }
      if (key !== name && name !== 'lower') {
        t.throws(() => checkMountOptions({ ...base, [name]: 'x' }), {
          name: 'MountError',
          option: name,
        })
      }
      if (key === undefined) t.equal(library, 'no key')
      else t.doesNotThrow(() => checkMountOptions({ ...base, [key]: undefined, lower: '/l' }), key)
    }
  }
})

t.test('the table has every known option', async t => {
  const named = new Set(
    rows.flatMap(([, options = '']) =>
      [...options.matchAll(/`([^`=]+)/g)].map(([, name = '']) => name),
    ),
  )
  const own = ['io', 'whiteout', 'noopen', 'pamconsole', 'log_level', 'log_file', 'own_server']
  t.same(
    knownNames().filter(name => !named.has(name) && !own.includes(name)),
    [],
  )
})

t.test('the text of the message', async t => {
  for (const [item, message] of [
    ['uperdir=/u', /^uperdir=\/u: no such option; did you mean upperdir\?$/],
    ['lower=/l', /did you mean lowerdir\?$/],
    ['redirectdir=on', /did you mean redirect_dir\?$/],
    ['zzzzzz', /^zzzzzz: no such option$/],
    ['metacopy=on', /^metacopy=on: this option is not offered: a copy-up copies the data, too/],
    ['ro=1', /^ro=1: this option takes no value; write ro$/],
    ['context=x', /^context=x: .*label/],
  ] as const) {
    const { ignored, labels } = parseMountOptions([item], '/', 0)
    t.throws(() => checkUnknown(ignored, labels, 'refuse'), { code: 'EINVAL', message }, item)
  }
})

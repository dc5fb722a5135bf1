import t from 'tap'
import { toBytes, toText } from '../../../src/fuse-native/names.js'

t.test('both directions', async t => {
  for (const text of ['', 'a', 'sp ace', '\u00e9', '\u65e5\u672c', '\u{1f600}', '\u007f']) {
    const bytes = toBytes(text)
    t.equal(bytes, Buffer.from(text, 'utf8').toString('latin1'), JSON.stringify(text))
    t.equal(toText(bytes ?? ''), text)
  }
})

t.test('invalid UTF-8 is refused in both directions', async t => {
  for (const bytes of ['\xff', 'a\x80', '\xc3', '\xed\xa0\x80']) t.equal(toText(bytes), undefined)
  t.equal(toBytes('a\ufffd'), undefined, 'and what it became is no name')
})

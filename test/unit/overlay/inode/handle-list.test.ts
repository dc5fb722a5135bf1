import * as fc from 'fast-check'
import t from 'tap'

import { isOpenToWrite, setFd, withDescriptor } from '../../../../src/overlay/inode/handle-list.js'
import type { FileHandle } from '../../../../src/overlay/inode/node.js'
import { HandleTable } from '../../../../src/overlay/file/handles.js'
import { Node } from '../../../../src/overlay/inode/node.js'
import { S_IFREG } from '../../../../src/sys/constants.js'

/** Not an open descriptor, so closing it does nothing. */
const NO_FD = 1_000_000

t.test('the first handle is a writer, or has a descriptor, if any does', async t => {
  const step = fc.record({
    what: fc.constantFrom('read', 'read', 'opened', 'write', 'fd', 'close', 'close'),
    which: fc.nat(1000),
  })
  const property = fc.property(fc.array(step, { maxLength: 100 }), steps => {
    const table = new HandleTable()
    const node = new Node(2, S_IFREG, 2)
    const model: FileHandle[] = []
    for (const { what, which } of steps) {
      const one = model[which % Math.max(1, model.length)]
      if (what === 'read') model.push(table.add(node, -1, false))
      else if (what === 'opened') model.push(table.add(node, NO_FD, false))
      else if (what === 'write') model.push(table.add(node, NO_FD, true))
      else if (one === undefined) continue
      else if (what === 'fd' && one.fd < 0) setFd(node.handles, one, NO_FD)
      else if (what === 'close') {
        table.remove(one.fh)
        model.splice(model.indexOf(one), 1)
      }
      const list = node.handles ?? []
      if (list.length !== model.length || new Set(list).size !== list.length) return false
      if (!model.every(handle => list[handle.slot] === handle)) return false
      if (isOpenToWrite(node) !== model.some(handle => handle.writable)) return false
      const found = withDescriptor(node.handles)
      if ((found !== undefined) !== model.some(handle => handle.fd >= 0)) return false
      if (found !== undefined && found.fd < 0) return false
    }
    return true
  })
  t.doesNotThrow(() => fc.assert(property))
})

t.test('an open file is closed without going through the others', async t => {
  const table = new HandleTable()
  const node = new Node(2, S_IFREG, 2)
  const all = Array.from({ length: 5_000 }, (_, i) => table.add(node, NO_FD, i % 2 === 0).fh)
  let steps = 0
  node.handles = new Proxy(node.handles ?? [], {
    get(list, key) {
      steps++
      return Reflect.get(list, key)
    },
  })
  for (const fh of all.toReversed()) table.remove(fh)
  t.equal(node.handles, null)
  t.ok(steps < 200 * all.length, `${steps} steps`)
})

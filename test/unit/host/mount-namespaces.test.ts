import * as fs from 'node:fs'

import t from 'tap'

import { readMountInfo } from '../../../src/host/proc-mounts.js'
import { namespaces, processes, mountPlaces } from '../../../src/host/mount-namespaces.js'

/** A line of its status; empty: the process has ended. */
const statusOf = (pid: number, name: string): string => {
  try {
    const text = fs.readFileSync(`/proc/${pid}/status`, 'latin1')
    return new RegExp(`^${name}:\\t(.*)$`, 'm').exec(text)?.[1] ?? ''
  } catch {
    return ''
  }
}

t.test('processes, without the threads of the kernel', async t => {
  const found = processes()
  t.ok(found.includes(process.pid))
  // In a pid namespace, process 2 is an ordinary process.
  if (statusOf(2, 'Name') !== 'kthreadd' || !fs.existsSync('/proc/2/task/2/children')) return
  t.same(
    found.filter(pid => statusOf(pid, 'PPid') === '2'),
    [],
  )
})

t.test('namespaces, the own one first', async t => {
  const mounts = readMountInfo()
  const [own, ...others] = namespaces({ mounts, holding: 'no line has this' })
  t.strictSame(own, { pid: process.pid, own: true, mounts })
  for (const other of others) t.match(other, { own: false, mounts: [] })
  t.equal(namespaces({ most: 1 }).length, 1)
})

t.test('a device number that a filesystem of another type has reused', async t => {
  // Device numbers of these live as long as the process namespace.
  const devices = readMountInfo()
    .filter(({ type }) => type === 'proc' || type === 'sysfs')
    .map(({ device }) => device)
  t.ok(devices.length > 0)
  t.strictSame(mountPlaces(new Set(devices)), [])
})

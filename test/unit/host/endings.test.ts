import { mkdtempSync, mkdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'

import t from 'tap'

import { awaitEndings, registerMount } from '../../../src/host/endings.js'
import { deferred } from '../../../src/fuse/mount/unmount.js'
import { deviceOn } from '../../../src/host/proc-mounts.js'

const NOWHERE = '0:1048575'

t.test('waiting for the end of a mount of this process', async t => {
  const top = mkdtempSync(`${tmpdir()}/tsoverlay-endings-`)
  t.teardown(() => rmSync(top, { recursive: true }))
  const [upper, work, link] = ['upper', 'work', 'link'].map(name => `${top}/${name}`)
  mkdirSync(upper!)
  symlinkSync(upper!, link!)
  let seen: string[] = []
  const start = (
    device: string | undefined,
    directories: string[] = [upper!, work!],
    mountpoint = '/proc',
  ) => {
    seen = []
    const closed = deferred<void>()
    const place = device === undefined ? undefined : { device, mountpoint }
    const end = (): void => {
      seen.push('ended')
      closed.resolve()
    }
    return { end, onLazy: registerMount(directories, place, closed.promise) }
  }
  const ask = async (directories: string[], patience?: number): Promise<void> => {
    await awaitEndings(directories, patience)
    seen.push('asked')
  }

  for (const name of [upper!, work!, link!]) {
    const one = start(NOWHERE)
    const asked = ask([name])
    setTimeout(one.end, 20)
    await asked
    t.strictSame(seen, ['ended', 'asked'], 'it is waited for')
    await ask([name])
  }
  for (const [why, device, directories] of [
    ['it is mounted', deviceOn('/proc'), [upper!]],
    ['it has other directories', NOWHERE, [top]],
    ['there is no telling', undefined, [upper!]],
  ] as const) {
    const one = start(device)
    await ask([...directories])
    one.end()
    t.strictSame(seen, ['asked', 'ended'], why)
    await new Promise(setImmediate)
  }
  const lazy = start(NOWHERE)
  lazy.onLazy()
  await ask([upper!])
  lazy.end()
  t.strictSame(seen, ['asked', 'ended'], 'it may last')
  await new Promise(setImmediate)

  const long = start(NOWHERE)
  await ask([upper!], 10)
  long.end()
  t.strictSame(seen, ['asked', 'ended'], 'not for ever')
  await new Promise(setImmediate)

  const old = start(deviceOn('/proc'))
  const other = start(deviceOn('/proc'), [top])
  const asked = ask([upper!])
  setTimeout(old.end, 20)
  await asked
  t.strictSame(seen, ['ended', 'asked'], 'a later mount has its device number')
  other.end()
  await new Promise(setImmediate)

  const moved = start(deviceOn('/proc'), undefined, '/nowhere')
  const asking = ask([work!])
  setTimeout(moved.end, 20)
  await asking
  t.strictSame(seen, ['ended', 'asked'], 'a mount of others has its device number')
})

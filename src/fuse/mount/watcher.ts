/**
 * A small process beside the server that outlives it: should the server be killed, it takes all
 * mounts away that were made by fusermount3. (The auto_unmount of fusermount3 looks whether the
 * mount is dead with rights that a mount which lets nobody else in does not give it; libfuse 3.14.)
 */

import { spawn, type ChildProcess } from 'node:child_process'

import { findFusermount } from './fusermount.js'

/**
 * What the shell runs first. The server then writes calls of these functions; where its pipe ends,
 * the shell does, too. `watch` has a number, and the device and the mountpoint as mountinfo has
 * them, and the mountpoint. A mount is taken away if it is still the topmost one on its directory.
 */
const FUNCTIONS = `trap '' HUP INT TERM
watched=
watch() {
  watched="$watched $1"
  eval "device_$1=\\$2 point_$1=\\$3 path_$1=\\$4"
}
leave() {
  rest=
  for one in $watched; do [ "$one" = "$1" ] || rest="$rest $one"; done
  watched=$rest
}
take_away() {
  for one in $watched; do
    eval "device=\\$device_$one at=\\$point_$one path=\\$path_$one"
    top=
    while read -r id parent number root point rest; do
      [ "$point" = "$at" ] && top=$number
    done </proc/self/mountinfo
    [ "$top" = "$device" ] && "$program" -u -z -q -- "$path"
  done
}
trap take_away EXIT
`

/** A word of a shell's. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** As the kernel writes a mountpoint (fs/proc_namespace.c:show_mountinfo). */
const escapeOctal = (path: string): string =>
  path.replaceAll(/[ \t\n\\]/g, char => `\\${char.charCodeAt(0).toString(8).padStart(3, '0')}`)

interface Watcher {
  child: ChildProcess
  mounts: number
}

let watcher: Watcher | undefined
let count = 0

/** @param mountpoint for who looks at its command line */
const start = (mountpoint: string): Watcher | undefined => {
  const program = findFusermount()
  if (program === undefined) return undefined
  const child = spawn('/bin/sh', ['-s', 'tsoverlay-watch', mountpoint], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
    cwd: '/',
  })
  const started: Watcher = { child, mounts: 0 }
  const lost = (): void => {
    if (watcher === started) watcher = undefined
  }
  child.on('error', lost) // without a shell nobody watches
  child.on('exit', lost)
  child.stdin.on('error', lost) // it was killed
  child.unref()
  const input = child.stdin as NodeJS.WritableStream & { unref?: () => void }
  input.unref?.()
  input.write(`program=${quoted(program)}\n${FUNCTIONS}`)
  return started
}

/**
 * Has the watcher take a mount away when this process is killed. All mounts of the process have one
 * watcher, which ends with the last of them.
 *
 * @param device what is mounted, as major:minor
 * @returns to be called when the mount has gone in another way
 */
export const watchOver = (mountpoint: string, device: string): (() => void) => {
  const own = (watcher ??= start(mountpoint))
  if (own === undefined) return () => {}
  const number = ++count
  own.mounts++
  const words = [device, escapeOctal(mountpoint), mountpoint].map(quoted)
  own.child.stdin?.write(`watch ${number} ${words.join(' ')}\n`)
  return () => {
    own.child.stdin?.write(`leave ${number}\n`)
    if (--own.mounts > 0) return
    own.child.stdin?.end()
    if (watcher === own) watcher = undefined
  }
}

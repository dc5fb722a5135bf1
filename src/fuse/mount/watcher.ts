/**
 * A small process beside the server that outlives it. If the server is killed, it unmounts all
 * mounts that were made by fusermount3. The option auto_unmount of fusermount3 does not serve this
 * purpose: it checks for a dead mount with rights to which a mount without allow_other denies
 * access (libfuse 3.14).
 */

import { spawn, type ChildProcess } from 'node:child_process'

import { findFusermount } from './fusermount.js'

/**
 * The shell's first input. The server then writes calls of these functions. The shell ends when the
 * server's end of the pipe is closed. The arguments of `watch` are a number, the device and the
 * mountpoint as in mountinfo, and the mountpoint. A mount is only detached if it is still the
 * topmost one on its directory.
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

/** Quotes a word for the shell. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** Escapes a mountpoint as the kernel does (fs/proc_namespace.c:show_mountinfo). */
const escapeOctal = (path: string): string =>
  path.replaceAll(/[ \t\n\\]/g, char => `\\${char.charCodeAt(0).toString(8).padStart(3, '0')}`)

interface Watcher {
  child: ChildProcess
  mounts: number
}

let watcher: Watcher | undefined
let count = 0

/** @param mountpoint appears in its command line only to identify it */
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
  child.on('error', lost) // without a shell there is no watcher
  child.on('exit', lost)
  child.stdin.on('error', lost) // it was killed
  child.unref()
  const input = child.stdin as NodeJS.WritableStream & { unref?: () => void }
  input.unref?.()
  input.write(`program=${quoted(program)}\n${FUNCTIONS}`)
  return started
}

/**
 * Has the watcher detach a mount when this process is killed. All mounts of the process share one
 * watcher, which ends with the last of them.
 *
 * @param device the mount's device, as major:minor
 * @returns a function that ends the watch, to be called when the filesystem was unmounted
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

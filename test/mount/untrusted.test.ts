/**
 * Mounts of root over layers with directories of an ordinary user. Nothing that the user creates
 * there gives the user more rights. docs/SECURITY.md has the rules.
 */

import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'

import t, { type Test } from 'tap'

import {
  directories,
  serve,
  skipMounts,
  test,
  tsoverlay,
  type Directories,
} from '../helpers/mount.js'
import { isNative } from '../helpers/transport.js'

const USER = 4242
const MODES = isNative() ? (['cached'] as const) : (['passthrough', 'cached'] as const)

/** Runs a shell as the ordinary user. Returns its output with errors. */
const asUser = (script: string, cwd: string): string => {
  const ids = { uid: USER, gid: USER }
  const result = spawnSync('/bin/sh', ['-c', script], {
    ...ids,
    cwd,
    encoding: 'utf8',
    timeout: 20_000,
  })
  return result.stdout + result.stderr
}

const shell = (script: string, cwd: string): void => {
  const { status, stderr } = spawnSync('/bin/sh', ['-ec', script], { cwd, encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
}

/**
 * A secret file of root in the lower layer, another next to the layers, and a directory `home` of
 * the user in all layers.
 */
const scene = (t: Test): Directories => {
  const where = directories(t, 'untrusted')
  fs.chmodSync(where.top, 0o755)
  shell(
    `mkdir -p lower/home lower/secret/inner upper/home
    echo secret >lower/secret/inner/f
    echo secret >victim
    chmod 600 victim
    chmod 700 lower/secret
    chown -R ${USER}:${USER} lower/home upper/home`,
    where.top,
  )
  return where
}

test(t, 'a symlink in the place of a file is not followed', { skip: skipMounts }, async t => {
  for (const io of MODES) {
    const where = scene(t)
    shell(`echo x >upper/home/f; chown ${USER} upper/home/f`, where.top)
    const server = await serve(t, where, '-o', `io=${io}`)
    const out = asUser(
      `stat -c %s merged/home/f; rm upper/home/f; ln -s ${where.top}/victim upper/home/f
      truncate -s 0 merged/home/f; chmod 666 merged/home/f; cat merged/home/f; echo y >merged/home/f`,
      where.top,
    )
    t.notMatch(out, /secret/, `${io}: ${out}`)
    t.equal(fs.readFileSync(`${where.top}/victim`, 'utf8'), 'secret\n')
    t.equal(fs.statSync(`${where.top}/victim`).mode & 0o777, 0o600)
    await server.unmount()
  }
})

test(
  t,
  'redirect and metacopy xattrs of users lead root nowhere',
  { skip: skipMounts },
  async t => {
    for (const options of ['userxattr', 'redirect_dir=on']) {
      const where = scene(t)
      const out = asUser(
        `for layer in upper lower; do
        mkdir $layer/home/d-$layer
        setfattr -n user.overlay.redirect -v /secret/inner $layer/home/d-$layer
        truncate -s 7 $layer/home/m-$layer
        setfattr -n user.overlay.metacopy $layer/home/m-$layer
        setfattr -n user.overlay.redirect -v /secret/inner/f $layer/home/m-$layer
        echo 'whole' >$layer/home/whole-$layer
        setfattr -n user.overlay.metacopy $layer/home/whole-$layer
      done`,
        where.top,
      )
      t.equal(out, '')
      // Adds a lower layer in which they would be found.
      shell('mkdir lower2; mv lower/secret lower2/; mkdir lower2/home', where.top)
      const union = { ...where, options: where.options.replace(',', `:${where.top}/lower2,`) }
      const server = await serve(t, union, '-o', options)
      const seen = asUser(
        'cat merged/home/d-upper/f merged/home/d-lower/f merged/home/m-upper merged/home/m-lower; ls -R merged/home',
        where.top,
      )
      t.notMatch(seen, /secret/, options)
      t.notMatch(seen, /^f$/m, options)
      // The data is not even looked up (kernel: ovl_lookup), except with userxattr, where the
      // metacopy xattr is an ordinary xattr of the user.
      const looked = asUser('stat -c %s merged/home/whole-*', where.top)
      const refused = /whole-lower.*not permitted\n.*whole-upper.*not permitted\n/
      t.match(looked, options === 'userxattr' ? refused : /^6\n6\n$/)
      await server.unmount()
    }
  },
)

test(t, 'incompatible options are reported to root', { skip: skipMounts }, async t => {
  const where = scene(t)
  const options = `${where.options},userxattr,redirect_dir=on`
  t.match(await tsoverlay('mount', '-o', options, where.merged), {
    status: 1,
    stderr: /userxattr and redirect_dir=on: root follows no redirect/,
  })
})

test(t, 'no xattr turns a user’s file into a program of root', { skip: skipMounts }, async t => {
  for (const options of ['', 'userxattr', 'xattr_permissions=2']) {
    const where = scene(t)
    fs.copyFileSync('/usr/bin/id', `${where.upper}/home/id`)
    fs.copyFileSync('/usr/bin/id', `${where.lower}/home/id2`)
    shell(
      `setfattr -n user.containers.override_stat -v 0:0:0755:dir lower
      chown ${USER}:${USER} upper/home/id lower/home/id2
      install -m 666 /usr/bin/id upper/all`,
      where.top,
    )
    const made = asUser(
      `for file in upper/home/id lower/home/id2 upper/all; do
        for prefix in user.containers.override_ user.fuseoverlayfs.override_; do
          setfattr -n \${prefix}stat -v 0:0:4755:file $file
          setfattr -n \${prefix}security.capability -v 0x010000028000000000000000000000000000000000 $file
        done
      done
      : >upper/home/mem
      setfattr -n user.containers.override_stat -v 0:0:0666:char-1-3 upper/home/mem`,
      where.top,
    )
    t.equal(made, '')
    const args = options === '' ? [] : ['-o', options]
    const server = await serve(t, where, ...args)
    const seen = asUser(
      `merged/home/id -u; merged/home/id2 -u; merged/all -u
      stat -c '%u %A' merged/home/id merged/home/id2 merged/home/mem
      stat -c %A merged/all; getcap merged/home/id merged/home/id2 merged/all 2>/dev/null`,
      where.top,
    )
    t.notMatch(seen, /^0/m, `${options}: ${seen}`)
    t.notMatch(seen, /^(\d+ )?([bc]|...s)/m, `${options}: ${seen}`)
    t.notMatch(seen, /cap_/, options)
    t.match(seen, new RegExp(`^${USER}$`, 'm'))
    await server.unmount()
  }
})

test(t, 'user xattrs hide nothing in root’s mount', { skip: skipMounts }, async t => {
  const where = scene(t)
  shell(
    'mkdir -p lower2/home/d; echo kept >lower2/home/d/file; echo kept >lower2/home/name',
    where.top,
  )
  const made = asUser(
    `mkdir lower/home/d upper/home/d
    setfattr -n user.overlay.opaque -v y lower/home/d
    setfattr -n user.fuseoverlayfs.opaque -v y lower/home/d
    setfattr -n user.overlay.opaque -v y upper/home/d
    : >lower/home/empty; setfattr -n user.overlay.whiteout -v y lower/home/empty`,
    where.top,
  )
  t.equal(made, '')
  const union = { ...where, options: where.options.replace(',', `:${where.top}/lower2,`) }
  const server = await serve(t, union)
  t.equal(fs.readFileSync(`${where.merged}/home/d/file`, 'utf8'), 'kept\n')
  t.ok(fs.existsSync(`${where.merged}/home/empty`))
  t.match(server.log(), /mount it with userxattr/, 'the log has a warning')
  await server.unmount()
  const asked = await serve(t, union, '-o', 'userxattr')
  t.notOk(fs.existsSync(`${where.merged}/home/d/file`), 'userxattr was requested')
  t.notOk(fs.existsSync(`${where.merged}/home/empty`))
  await asked.unmount()
})

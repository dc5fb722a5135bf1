/**
 * Mounts of an ordinary user: with fusermount3, and as root of a user namespace. Each test is a
 * shell script that runs as user nobody, in a mount namespace of its own in which every user may
 * open /dev/fuse. Its `ok` lines are assertions.
 */

import { spawnSync, type ChildProcess } from 'node:child_process'
import * as fs from 'node:fs'
import { fileURLToPath } from 'node:url'

import t, { type Test } from 'tap'

import { findFusermount } from '../../src/fuse/mount/fusermount.js'
import {
  isAlive,
  scratch,
  skipMounts,
  spawnNode,
  outcomeOf,
  test,
  waitUntil,
} from '../helpers/mount.js'

const NOBODY = 65534
const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url))

type Way = 'fusermount3' | 'user namespace'

/**
 * Runs as root: prepares everything for the user, then runs the user's script. $1 the directory, $2
 * fuse.conf, $3 Node, $4 the way.
 */
const SETUP = `
set -e
mount --make-rprivate /
app=$1/app
mkdir -p $app/dist $app/node_modules $app/bin
touch $app/package.json $app/bin/node
mount --bind "$5/dist" $app/dist
mount --bind "$5/node_modules" $app/node_modules
mount --bind "$5/package.json" $app/package.json
mount --bind "$3" $app/bin/node
mkdir $1/dev
mount -t tmpfs -o mode=755 tmpfs $1/dev
mknod -m 666 $1/dev/fuse c 10 229
mount --bind $1/dev/fuse /dev/fuse
printf '%s' "$2" >$1/dev/fuse.conf
[ ! -e /etc/fuse.conf ] || mount --bind $1/dev/fuse.conf /etc/fuse.conf
mkdir $1/ramfs
mount -t ramfs ramfs $1/ramfs
chown ${NOBODY}:${NOBODY} $1/ramfs
cd $1/user
user="setpriv --reuid=${NOBODY} --regid=${NOBODY} --clear-groups --inh-caps=-all"
[ "$4" = fusermount3 ] || user="$user unshare --user --map-root-user --mount"
exec env -i PATH="$app/bin:$PATH" HOME=$1/user TOP=$1 LC_ALL=C $user bash
`

/** The beginning of every script. */
const PRELUDE = `
set -u
T=$PWD
CLI="node $TOP/app/dist/cli/main.cjs"
umask 022
mkdir -p lower upper work merged
layers=lowerdir=$T/lower,upperdir=$T/upper,workdir=$T/work
say() { echo "\${*//$'\\n'/|}"; }
is() { if [ "$2" = "$3" ]; then say "ok $1"; else say "not ok $1: '$2' instead of '$3'"; fi; }
# has WHAT TEXT PATTERN
has() { if [[ $2 =~ $3 ]]; then say "ok $1"; else say "not ok $1: '$2' has not '$3'"; fi; }
# works COMMAND..., refuses ERROR COMMAND...
works() { local out; if out=$("$@" 2>&1); then say "ok $*"; else say "not ok $*: $out"; fi; }
refuses() {
  local out error=$1
  shift
  if out=$("$@" 2>&1); then say "not ok $*: worked"; else has "$*: $error" "$out" "$error"; fi
}
mounts() { grep -cF " $T/" /proc/self/mounts; }
named() { grep -las "$1" /proc/[0-9]*/cmdline; }
server() { named "[t]soverlay mount $T/" | tr -dc '0-9\\n'; }
watchers() { local some; some=$(named '[t]soverlay-watch'); [ -z "$some" ] && echo 0 || grep -las "$T/" $some | wc -l; }
# within SECONDS COMMAND...
within() { local i; for ((i = 0; i < $1 * 20; i++)); do if "\${@:2}"; then return 0; fi; sleep 0.05; done; return 1; }
gone() { [ "$(mounts)" = 0 ] && [ -z "$(server)" ] && [ "$(watchers)" = 0 ]; }
mnt() { local out; out=$($CLI mount -o $layers\${1:+,$1} $T/merged 2>&1) || echo "not ok mount: $out"; [ -z "$out" ] || say "not ok mount says: $out"; }
unmnt() { works $CLI umount $T/merged; within 10 gone || echo "not ok left: $(mounts) mounts, server $(server), $(watchers) watchers"; }
# What can be seen of a tree. Without numbers and times of directories, which belong to the file system.
tree() { (cd $1 && find . -printf '%P %y %m %U %G' \\( -type d -printf '\\n' -o -printf ' %s %T@ %l\\n' \\) | sort; find . -type f ! -perm 0 -exec md5sum {} + | sort -k2); }
`

const WAYS: readonly Way[] = ['fusermount3', 'user namespace']

const has = (program: string, ...args: string[]): boolean =>
  spawnSync(program, args, { stdio: 'ignore' }).status === 0

const skip: string | false =
  skipMounts !== false
    ? skipMounts
    : findFusermount() === undefined
      ? 'needs fusermount3 (fuse3)'
      : !has(
            'setpriv',
            `--reuid=${NOBODY}`,
            '--clear-groups',
            'unshare',
            '--user',
            '-r',
            '--mount',
            'true',
          )
        ? 'needs user namespaces'
        : false

interface Run {
  top: string
  done: Promise<void>
}

/** Converts the output of the script to assertions. */
const assertions = async (t: Test, child: ChildProcess): Promise<void> => {
  const { status, stdout, stderr } = await outcomeOf(child)
  t.equal(status, 0, `the script came to its end ${stderr}`)
  for (const line of stdout.trimEnd().split('\n')) {
    if (line.startsWith('ok ')) t.pass(line.slice(3))
    else t.fail(line)
  }
}

const start = (t: Test, way: Way, script: string, conf = ''): Run => {
  const { top } = scratch(t, 'rootless')
  fs.chmodSync(top, 0o755)
  fs.mkdirSync(`${top}/user`)
  fs.chownSync(`${top}/user`, NOBODY, NOBODY)
  const setup = [SETUP, 'setup', top, conf, process.execPath, way, REPOSITORY]
  const child = spawnNode(
    [
      '-e',
      // Node is started only to run bash without the instrumentation of the test run.
      `const { status } = require('node:child_process').spawnSync('unshare', ['--mount', 'bash', '-c', ...process.argv.slice(1)], { stdio: 'inherit' }); process.exit(status ?? 99)`,
      ...setup,
    ],
    { stdio: ['pipe', 'pipe', 'pipe'] },
  )
  child.stdin?.end(PRELUDE + script)
  return { top, done: assertions(t, child) }
}

/** A script for both ways. */
const both = (name: string, script: string, conf?: string): void => {
  for (const way of WAYS) {
    test(t, `${name}: ${way}`, { skip }, async t => {
      await start(t, way, `WAY='${way}'\n${script}`, conf).done
    })
  }
}

both(
  'a tree that the kernel shows, too',
  `
mkdir -p lower/{all,some/sub,gone,back,kept}
for f in all/{a,b} some/{x,y} some/sub/z gone/g back/old kept/k one two edit empty; do echo $f >lower/$f; done
: >lower/empty
ln lower/one lower/other
ln -s nowhere lower/link
mkfifo lower/fifo
setfattr -n user.mine -v value lower/edit
mnt
has 'mounted so' "$(grep -F " $T/merged " /proc/self/mounts)" 'fuse.tsoverlay rw,.*default_permissions'
cd merged
is 'of the lower layer' "$(cat edit)" edit
works sh -c 'echo more >>edit'
is 'edited' "$(cat edit)" "$(printf 'edit\\nmore')"
is 'its attribute is there' "$(getfattr --only-values -n user.mine edit)" value
works sh -c 'echo new >new'
works mkdir directory
works touch directory/file
works rm two link fifo
works rm -r all
works rm -r gone back
works mkdir back
is 'nothing shines through' "$(ls -A back)" ''
works touch back/new
works rm some/x
works mv some/y some/moved
works mv directory/file directory/renamed
works stat one other
works ln one third
works sh -c 'echo x >>other'
is 'links stay one file' "$(cat third)" "$(printf 'one\\nx')"
is 'links are counted' "$(stat -c %h one other third | tr '\\n' ' ')" '3 3 3 '
works chmod 640 empty
works mknod -m 600 pipe p
works ln -s target symlink
cd $T
tree merged >before
unmnt
is 'a whiteout' "$(stat -c '%F %t %T' upper/two)" 'character special file 0 0'
is 'a whiteout of a directory' "$(stat -c '%F %t %T' upper/all)" 'character special file 0 0'
is 'opaque' "$(getfattr --only-values -n user.overlay.opaque upper/back)" y
has 'origin' "$(getfattr -d -m - upper/edit)" user.overlay.origin
is 'the lower layer is as it was' "$(cat lower/edit lower/one | tr '\\n' ' ')" 'edit one '
[ "$WAY" != fusermount3 ] || is 'work is for the user alone' "$(stat -c %a work/work)" 700
mnt
tree merged >after
is 'the same after a remount' "$(diff before after)" ''
is 'links still' "$(stat -c '%h' merged/one merged/other merged/third | tr '\\n' ' ')" '3 3 3 '
unmnt
cat >kernel <<'END'
mount -t overlay overlay -o lowerdir=$PWD/lower,upperdir=$PWD/upper,workdir=$PWD/work,userxattr merged && tree merged && umount merged
END
export -f tree
# The kernel's knows the names of a file only where they were copied up: here all have been seen.
unshare_() { if [ "$WAY" = fusermount3 ]; then unshare --user --map-root-user --mount bash; else bash; fi; }
unshare_ <kernel >theirs 2>&1
ids() { sed -E 's/^(.* [a-z] [0-7]+) [0-9]+ [0-9]+/\\1/' $1; }
is 'the kernel shows it so' "$(diff <(ids before) <(ids theirs))" ''
`,
)

both(
  'redirect_dir=on',
  `
mkdir -p lower/a/b/c lower/d
echo 1 >lower/a/b/c/file
echo 2 >lower/a/top
mnt redirect_dir=on
cd merged
works mv a moved
works mv moved/b d/b2
works sh -c 'echo x >>d/b2/c/file'
works mv d/b2 top
is 'moved' "$(find . -printf '%P %y\\n' | sort | tr '\\n' ' ')" ' d d d moved d moved/top f top d top/c d top/c/file f '
cd $T
tree merged >before
unmnt
has 'by a redirect' "$(getfattr -d -m - upper/moved)" 'user.overlay.redirect="(/?)a"'
mnt redirect_dir=on
tree merged >after
is 'the same after a remount' "$(diff before after)" ''
works rm -r merged/moved merged/top
is 'all removed' "$(ls merged)" d
unmnt
mnt
echo in-lower >lower/d/x
refuses 'Invalid cross-device link|cannot move' python3 -c "
import os
try: os.rename('merged/d', 'merged/e')
except OSError as e: raise SystemExit(os.strerror(e.errno))"
unmnt
`,
)

both(
  'modes that forbid the owner',
  `
mkdir -p lower/ro/sub lower/wx
echo a >lower/ro/file
echo b >lower/ro/sub/file
echo c >lower/linked
ln lower/linked lower/twin
chmod 444 lower/linked
chmod 555 lower/ro lower/ro/sub
mnt redirect_dir=on
cd merged
works sh -c 'echo more >>ro/file'
is 'a file in a read-only directory' "$(cat ro/file)" "$(printf 'a\\nmore')"
works chmod 600 ro/sub/file
is 'the directories keep their mode' "$(stat -c %a ro ro/sub ../upper/ro ../upper/ro/sub | tr '\\n' ' ')" '555 555 555 555 '
works ln linked third
works rm twin
is 'links of a read-only file' "$(stat -c '%h %a' linked third | tr '\\n' ' ')" '2 444 2 444 '
[ "$WAY" != fusermount3 ] || refuses 'Permission denied' touch ro/new
works chmod u+w ro ro/sub
works rm -r ro
works mkdir ro
is 'nothing shines through' "$(ls -A ro)" ''
works chmod 0 ro
works rmdir ro
works sh -c 'umask 0577; echo q >wonly; echo r >>wonly'
works chmod 600 wonly
is 'written without a right to read' "$(cat wonly)" "$(printf 'q\\nr')"
works python3 -c "
import os
fd = os.open('t', os.O_RDWR | os.O_CREAT, 0o600); os.fchmod(fd, 0); os.write(fd, b'abc'); os.ftruncate(fd, 2); os.fsync(fd)
os.lseek(fd, 0, 0); assert os.read(fd, 9) == b'ab'"
mkdir hidden; touch hidden/f
works rm hidden/f
works chmod 300 hidden
works rmdir hidden
cd $T
unmnt
`,
)

both(
  'what cannot be stored is refused',
  `
echo f >lower/f
mnt
cd merged
for what in 'mknod device c 1 3' 'mknod device b 7 0' 'mknod whiteout c 0 0' \\
  'setfattr -n trusted.x -v 1 f' 'setfattr -n security.x -v 1 f'; do
  refuses 'Operation not permitted' $what
done
refuses 'Operation not permitted|Invalid argument' chown 1 f
refuses 'Operation not permitted|Invalid argument' chgrp 1 f
works setfattr -n user.x -v 1 f
works setfattr -n user.overlay.opaque -v y f
is 'a name like the marks' "$(getfattr --only-values -n user.overlay.opaque f)" y
is 'and nothing else was' "$(getfattr -d -m - f | grep -c =)" 2
cd $T
is 'escaped' "$(getfattr --only-values -n user.overlay.overlay.opaque upper/f)" y
unmnt
`,
)

both(
  'forms of whiteouts',
  `
for form in char xattr wh; do
  rm -rf lower upper; chmod -R u+rwx work; rm -rf work
  mkdir -p lower/d/sub lower/e upper work
  for f in a b d/1 d/2 d/sub/3 e/4; do echo $f >lower/$f; done
  mnt whiteout=$form
  cd merged
  works rm a d/1
  works rm -r d/sub e
  works mkdir e
  is "$form" "$(find . -printf '%P %y\\n' | sort | tr '\\n' ' ')" ' d b f d d d/2 f e d '
  cd $T
  unmnt
  case $form in
    char) has $form "$(stat -c %F upper/a)" 'character special' ;;
    xattr) is $form "$(getfattr --only-values -n user.overlay.whiteout upper/a; getfattr --only-values -n user.overlay.opaque upper)" yx ;;
    wh) works test -f upper/.wh.a ;;
  esac
  mnt
  is "$form, after a remount" "$(cd merged; find . -printf '%P %y\\n' | sort | tr '\\n' ' ')" ' d b f d d d/2 f e d '
  works touch merged/a
  works rm merged/a
  unmnt
done
`,
)

both(
  'a file system without attributes',
  `
cd $TOP/ramfs
mkdir lower upper work
layers=lowerdir=$PWD/lower,upperdir=$PWD/upper,workdir=$PWD/work
mkdir -p lower/d/sub; echo 1 >lower/d/1; echo 2 >lower/2
has 'it is said' "$($CLI mount -o $layers,redirect_dir=on $T/merged 2>&1)" 'neither as trusted. nor as user.'
cd $T/merged
works sh -c 'echo x >>2'
works rm -r d
works mkdir d
is 'nothing shines through' "$(ls -A d)" ''
works touch d/new
cd $T
unmnt
works test -f $TOP/ramfs/upper/d/.wh..wh..opq
$CLI mount -o $layers $T/merged 2>/dev/null
is 'nor after a remount' "$(ls -A merged/d)" new
works rm -r merged/d
is 'removed' "$(ls merged)" 2
unmnt
`,
)

both(
  'its end',
  `
echo f >lower/f
mkdir 'lower/d'
mnt
is 'one server' "$(server | wc -w)" 1
[ "$WAY" != fusermount3 ] || is 'one watcher' "$(watchers)" 1
exec 9<merged/f
refuses 'is busy' $CLI umount $T/merged
is 'still there' "$(cat merged/f)" f
works $CLI umount --lazy $T/merged
is 'out of the tree' "$(mounts)" 0
is 'served to the end' "$(cat <&9)" f
exec 9<&-
within 10 gone && echo 'ok gone'
for signal in TERM INT HUP; do
  mnt
  echo $signal >merged/new
  kill -$signal $(server)
  within 10 gone && echo "ok gone by SIG$signal"
  is written "$(cat upper/new)" $signal
done
mnt
exec 9<merged/f
kill -TERM $(server)
within 10 test "$(mounts)" = 0
is 'busy at SIGTERM' "$(cat <&9)" f
exec 9<&-
within 10 gone && echo 'ok gone when it is closed'
if [ "$WAY" = fusermount3 ]; then
  for point in merged 'mer ged'; do
    mkdir -p "$point"
    $CLI mount -o $layers "$T/$point"
    kill -KILL $(server)
    within 10 gone && echo "ok no dead mount after SIGKILL on $point"
    works ls "$point"
  done
  mnt
  works fusermount3 -u $T/merged
  within 10 gone && echo 'ok gone by fusermount3'
fi
cat >program.mjs <<END
import { mount } from '$TOP/app/dist/lib/index.js'
import * as fs from 'node:fs'
const m = await mount({ lower: '$T/lower', upper: '$T/upper', work: '$T/work', mountpoint: '$T/merged' })
fs.writeFileSync('$T/merged/by-library', 'x')
fs.openSync('$T/merged/by-library', 'r')
// Long enough for the server to become idle, because an idle server does not poll.
await new Promise(done => setTimeout(done, 1500))
if (process.argv[2] === 'leave') process.exit(3)
await m.unmount({ lazy: true })
process.exit(4)
END
node program.mjs leave
is 'a program that exits' "$? $(mounts)" '3 0'
node program.mjs stay
is 'a program that unmounts' "$? $(mounts)" '4 0'
within 10 gone && echo 'ok nothing is left'
mnt nosuid,noexec,ro
has 'flags' "$(grep -F " $T/merged " /proc/self/mounts)" ' ro,(nosuid,)?(nodev,)?noexec'
unmnt
`,
)

test(t, 'bad input', { skip }, async t => {
  await start(
    t,
    'fusermount3',
    `
one_line() { is "one line: $1" "$(echo "$2" | wc -l)" 1; has "$1" "$2" "$3"; }
try() { $CLI mount -o $layers"$1" "$2" 2>&1 && echo mounted; }
one_line allow_other "$(try ,allow_other $T/merged)" '^tsoverlay: allow_other: .*user_allow_other.*/etc/fuse.conf'
one_line 'not owned' "$(try '' /tmp)" '^tsoverlay: mountpoint=/tmp: fusermount3: .*not owned by user; mount on'
one_line 'not writable' "$(try '' /usr)" '^tsoverlay: mountpoint=/usr: fusermount3: .*no write access.*; mount on'
one_line io "$(try ,io=passthrough $T/merged)" '^tsoverlay: io=passthrough: it needs CAP_SYS_ADMIN'
one_line 'no new rights' "$(setpriv --no-new-privs $CLI mount -o $layers $T/merged 2>&1)" 'fusermount3: mount failed: Operation not permitted; .*unshare -rm'
one_line 'a user namespace without a mount namespace' "$(unshare --user --map-root-user $CLI mount -o $layers $T/merged 2>&1)" 'fusermount3: '
one_line 'a lower layer of root' "$(mkdir x; $CLI mount -o lowerdir=/root $T/merged 2>&1)" '^tsoverlay: lowerdir=/root: permission denied'
is 'nothing is mounted' "$(mounts)" 0
`,
  ).done
})

test(t, 'without fusermount3', { skip }, async t => {
  const { top } = scratch(t, 'rootless')
  const { mountByHelper } = await import('../../src/fuse/mount/fusermount.js')
  t.equal(findFusermount('/nonexistent'), findFusermount(''), 'also if PATH does not contain it')
  await t.rejects(
    mountByHelper({
      mountpoint: `${top}/nothing`,
      fsname: 'a,b',
      subtype: '',
      allowOther: false,
      flags: 0,
    }),
    { code: 'EPERM', option: 'mountpoint' },
  )
  await start(
    t,
    'user namespace',
    `
mount -t tmpfs tmpfs /usr/local/bin
for f in /usr/bin/fusermount3 /bin/fusermount3; do [ ! -e $f ] || mount --bind /dev/null $f; done
out=$(setpriv --bounding-set=-all --inh-caps=-all --no-new-privs $CLI mount -o $layers $T/merged 2>&1)
has 'both ways out' "$out" '^tsoverlay: mountpoint=.*no right to mount; install fusermount3 .*unshare -rm'
is 'one line' "$(echo "$out" | wc -l)" 1
is 'nothing was done' "$(ls -A work)" ''
`,
  ).done
})

const wait = `until [ -e $T/go ]; do sleep 0.05; done; rm $T/go`

const asRoot = (pid: number, script: string): string => {
  const { stdout, stderr } = spawnSync(
    'nsenter',
    ['--mount', '--target', String(pid), 'bash', '-c', script],
    { encoding: 'utf8', env: { PATH: process.env['PATH'], LC_ALL: 'C', HOME: '/nonexistent' } },
  )
  return stdout + stderr
}

test(t, 'other users', { skip }, async t => {
  const run = start(
    t,
    'fusermount3',
    `
echo f >lower/f
mkdir lower/open
mnt
echo $(server) >pid.new; mv pid.new pid
${wait}
unmnt
mnt allow_other
echo $(server) >pid.new; mv pid.new pid
${wait}
is 'nothing was made' "$(ls -A upper/open 2>/dev/null)" ''
unmnt
`,
    'user_allow_other\n',
  )
  const user = `${run.top}/user`
  const pid = async (): Promise<number> => {
    await waitUntil('a mount', () => fs.existsSync(`${user}/pid`))
    const served = Number(fs.readFileSync(`${user}/pid`, 'latin1'))
    fs.rmSync(`${user}/pid`)
    return served
  }
  const go = (): void => fs.writeFileSync(`${user}/go`, '')
  let server = await pid()
  t.ok(isAlive(server))
  t.match(
    asRoot(server, `cat ${user}/merged/f`),
    /Permission denied/,
    'not even root looks into it',
  )
  go()
  server = await pid()
  t.equal(asRoot(server, `cat ${user}/merged/f`), 'f\n', 'allow_other')
  for (const command of ['touch open/new', 'mkdir open/new', 'ln -s x open/new', 'mkfifo open/new'])
    t.match(asRoot(server, `cd ${user}/merged && ${command}`), /Operation not permitted/, command)
  t.equal(asRoot(server, `cd ${user}/merged && echo x >>f && cat f`), 'f\nx\n', 'what is there')
  go()
  await run.done
})

test(t, 'files of other users', { skip }, async t => {
  for (const way of WAYS) {
    const run = start(
      t,
      way,
      `
${wait}
mnt
cd merged
[ "$WAY" = fusermount3 ] && error='Operation not permitted' || error='Permission denied|Value too large'
is 'read' "$(cat open)" open
refuses "$error" bash -c 'echo x >>open'
refuses "$error" touch directory/new
refuses "$error" rm directory/file
refuses 'Permission denied' ls closed
refuses 'Permission denied' cat closed/file
works sh -c 'echo x >>mine'
cd $T
is 'nothing else was copied up' "$(ls upper)" mine
is 'nor lost' "$(cat merged/open merged/directory/file | tr '\\n' ' ')" 'open file '
unmnt
`
        .replace('${wait}', wait)
        .replace('"$WAY" = fusermount3', way === 'fusermount3' ? '1' : '-z 1'),
    )
    const lower = `${run.top}/user/lower`
    await waitUntil('the directories', () => fs.existsSync(`${run.top}/user/merged`))
    fs.writeFileSync(`${lower}/open`, 'open\n')
    fs.chmodSync(`${lower}/open`, 0o666)
    fs.mkdirSync(`${lower}/directory`)
    fs.chmodSync(`${lower}/directory`, 0o777)
    fs.writeFileSync(`${lower}/directory/file`, 'file\n')
    fs.mkdirSync(`${lower}/closed`, { mode: 0o700 })
    fs.writeFileSync(`${lower}/closed/file`, '')
    fs.writeFileSync(`${lower}/mine`, 'mine\n')
    fs.chownSync(`${lower}/mine`, NOBODY, NOBODY)
    fs.writeFileSync(`${run.top}/user/go`, '')
    await run.done
  }
})

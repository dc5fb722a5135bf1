/**
 * Runs the examples of every document, of the help, and of the library's types. Each runs in a root
 * directory of its own: the machine's root with a temporary layer on top, mounted by kernel
 * overlayfs, in new mount and process namespaces. Examples that are not run have a reason in the
 * document.
 */

import { spawn, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { fileURLToPath } from 'node:url'

import t, { type Test } from 'tap'

import {
  CLI,
  DETACH_COPIES,
  outcomeOf,
  scratch,
  skipMounts,
  test,
  type Outcome,
} from '../helpers/mount.js'
import { isNative } from '../helpers/transport.js'

const repository = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')
const read = (path: string): string => fs.readFileSync(`${repository}/${path}`, 'utf8')

/** Documents without examples of programs. */
const others = new Set(['LICENSE', 'CHANGELOG.md'])

const directories = ['', 'bench/', 'docs/', 'docs/decisions/', 'examples/', 'scripts/', 'test/']
const documents = directories.flatMap(directory =>
  !fs.existsSync(`${repository}/${directory}`)
    ? []
    : fs
        .readdirSync(`${repository}/${directory}`)
        .filter(name => name.endsWith('.md') && !others.has(name))
        .map(name => `${directory}${name}`),
)

interface Block {
  name: string
  language: string
  text: string
  /** Why it can't be run. */
  notRun: string | undefined
}

const blocksOf = (path: string): Block[] => {
  const fence = /(?:^<!-- not run: (.+?) -->\n\n)?^```(.*)\n([^]*?)^```$/gm
  return [...read(path).matchAll(fence)].map(([, notRun, language = '', text = '']) => ({
    name: `${path}: ${text.trim().split('\n', 1)[0]}`,
    language,
    text,
    notRun,
  }))
}

/** Languages that are no programs. */
const plain = new Set(['text', 'toml'])

/**
 * Creates the directory that the examples use, and makes Node and the program available. `$1`: a
 * directory, `$2`: Node, `$3`: the package.
 */
const setUp = `${DETACH_COPIES}
  mount -t tmpfs none "$1"
  mkdir -p "$1"/upper "$1"/work "$1"/root
  mount -t overlay none "$1/root" -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work"
  cd "$1/root"
  mount -t proc proc proc
  mount --rbind /dev dev
  mount --rbind /sys sys
  mount -t tmpfs none tmp
  mkdir -p ".$3" a b u w mnt/m layers/app layers/base layers/upper layers/work root/a root/u root/w root/m
  mkdir -p srv/app srv/base srv/changes/upper srv/changes/work tmp/app/node_modules
  mount --bind "$3" ".$3"
  [ -e ".$2" ] || { mkdir -p ".\${2%/*}"; : >".$2"; mount --bind "$2" ".$2"; }
  for path in /usr/local/bin/node /usr/bin/node; do [ "$path" = "$2" ] || ln -sf "$2" ".$path"; done
  rm -f usr/local/bin/tsoverlay usr/local/bin/fuse-overlayfs
  for name in tsoverlay fuse-overlayfs; do ln -s "$3/dist/cli/tsoverlay" "usr/local/bin/$name"; done
  ln -s "$3" tmp/app/node_modules/tsoverlay
  echo a >a/file
  # What is still mounted is unmounted, which has to work.
  cat >tmp/run <<'END'
    export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    cd /tmp/app
    bash --norc -e /tmp/example
    findmnt -rn -o TARGET | while read -r point; do
      case $point in /mnt/m | /root/m) umount "$point" ;; esac
    done
END
  cat >tmp/example
  chroot . bash --norc -e /tmp/run
`

const place = (t: Test): string => {
  const { top } = scratch(t, 'documents')
  return top
}

/** Runs a shell script in that environment. */
const inPlace = async (t: Test, script: string): Promise<Outcome> => {
  const node = fs.realpathSync(process.execPath)
  const shell = ['bash', '--norc', '-ec', setUp, 'bash', place(t), node, repository]
  const child = spawn('unshare', ['-m', '-p', '-f', '--propagation', 'private', ...shell], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'], TSOVERLAY_SERVER: '' },
  })
  child.stdin?.end(script)
  return outcomeOf(child)
}

const works = async (t: Test, script: string): Promise<Outcome> => {
  const outcome = await inPlace(t, script)
  t.match(outcome, { status: 0, signal: null, stderr: '' }, script)
  return outcome
}

/** Converts an example of each language to a shell script. */
const languages: Readonly<Record<string, (text: string) => string>> = {
  sh: text => text,
  js: text => `cat >example.mjs <<'END'\n${text}END\nnode example.mjs`,
  fstab: text =>
    text
      .trim()
      .split('\n')
      .map(
        line =>
          `echo '${line}' >fstab\nmount -T fstab '${line.split(/\s+/)[1]}'\nfindmnt -t fuse.tsoverlay`,
      )
      .join('\n'),
}

const noPlace = (): string | false => {
  if (skipMounts !== false) return skipMounts
  if (isNative()) return 'one transport is enough'
  const top = fs.mkdtempSync('/tmp/tsoverlay-documents-')
  const script = `mount -t tmpfs none '${top}' && cd '${top}' && mkdir u w r && mount -t overlay none r -o lowerdir=/,upperdir=u,workdir=w`
  const { status } = spawnSync('unshare', ['-m', '-p', '-f', 'bash', '-ec', script])
  fs.rmdirSync(top)
  return status !== 0 && "needs the kernel's overlayfs over /"
}
const skip = noPlace()

const needs: readonly [RegExp, string][] = [
  [/mount -t fuse\.|^none .* fuse\./m, '/sbin/mount.fuse3'],
]
const lacks = (text: string): string | undefined =>
  needs.find(([words, path]) => words.test(text) && !fs.existsSync(path))?.[1]

for (const { name, language, text, notRun } of documents.flatMap(blocksOf)) {
  const how = languages[language]
  const why = notRun ?? (lacks(text) === undefined ? skip : `needs ${lacks(text)}`)
  if (plain.has(language)) continue
  test(t, name, { skip: why }, async t => {
    if (how === undefined) t.fail(`no way to run: ${language}`)
    else await works(t, how(text))
  })
}

t.test('every block has a language', async t => {
  for (const { name, language } of documents.flatMap(blocksOf)) {
    t.ok(plain.has(language) || languages[language] !== undefined, name)
  }
  for (const path of documents) {
    t.equal(blocksOf(path).length * 2, read(path).match(/^```/gm)?.length ?? 0, path)
  }
})

test(t, 'the demo', { skip }, async t => {
  await works(t, `node '${repository}/scripts/demo.mjs'`)
})

test(
  t,
  'the examples of the help',
  { skip: lacks('mount -t fuse.x') === undefined ? skip : 'needs mount.fuse3' },
  async t => {
    const helps = [[], ['mount'], ['umount'], ['ls'], ['stats'], ['which']].map(
      args => spawnSync(process.execPath, [CLI, ...args, '--help'], { encoding: 'utf8' }).stdout,
    )
    const lines = helps
      .flatMap(text => text.split(/^Examples:\n/m)[1]?.split('\n') ?? [])
      .map(line => /^ {2}((?:tsoverlay|mount) .*?)(?: {3,}\S.*)?$/.exec(line)?.[1] ?? '')
      .filter(line => line !== '' && !/--help|\[/.test(line))
    t.ok(lines.length >= 8, lines.join('\n'))
    const mounted = 'mountpoint -q /mnt/m'
    for (const line of lines) {
      const isMount = /^mount|tsoverlay mount/.test(line)
      const script = /tsoverlay (ls|stats|which)/.test(line)
        ? `tsoverlay mount -o lowerdir=/a /mnt/m; ${line}; tsoverlay umount /mnt/m`
        : !isMount
          ? `tsoverlay mount -o lowerdir=/a /mnt/m; ${line}; ! ${mounted}`
          : / -f /.test(line)
            ? `${line} 2>log & until ${mounted}; do sleep 0.1; done; tsoverlay umount /mnt/m; wait`
            : `${line}; ${mounted}; tsoverlay umount /mnt/m`
      await works(t, script)
    }
  },
)

test(t, "the example of the library's types", { skip }, async t => {
  const text = read('dist/index.d.ts')
  const examples = [...text.matchAll(/@example\n((?:\s*\* .*\n)+)/g)].map(([, lines = '']) =>
    lines.replaceAll(/^\s*\* /gm, ''),
  )
  t.ok(examples.length > 0)
  for (const example of examples) {
    const program = `import { mount } from 'tsoverlay'\n${example}await m.unmount()\n`
    await works(t, languages['js']?.(program) ?? '')
  }
})

test(
  t,
  'the systemd unit, mounted by mount(8)',
  { skip: lacks('mount -t fuse.x') === undefined ? skip : 'needs mount.fuse3' },
  async t => {
    const unit = read('examples/mnt-m.mount')
    const value = (key: string): string => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1] ?? ''
    const words = `-t ${value('Type')} ${value('What')} ${value('Where')} -o ${value('Options')}`
    await works(t, `mount ${words}\nmountpoint -q ${value('Where')}`)
  },
)

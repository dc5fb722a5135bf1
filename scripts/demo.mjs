// `npm run demo`: mounts a union of three layers and shows how creating, editing and deleting files
// changes each layer. It works in a temporary directory, which it removes.
import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'

const cli = fileURLToPath(new URL('../dist/cli/tsoverlay', import.meta.url))
const isRoot = process.geteuid() === 0
const inNamespace = process.env.TSOVERLAY_DEMO_NAMESPACE === '1'

if (!fs.existsSync(cli)) {
  console.error('The program is not built yet: run npm ci (or npm run build) first.')
  process.exit(1)
}
if (!isRoot) {
  // An ordinary user may mount in a user and mount namespace of its own.
  const { status, error } = spawnSync(
    'unshare',
    ['--user', '--map-root-user', '--mount', process.execPath, fileURLToPath(import.meta.url)],
    { stdio: 'inherit', env: { ...process.env, TSOVERLAY_DEMO_NAMESPACE: '1' } },
  )
  if (error !== undefined) console.error(`unshare: ${error.message}; run the demo as root instead`)
  process.exit(status ?? 1)
}

const top = fs.realpathSync(fs.mkdtempSync(`${tmpdir()}/tsoverlay-demo-`))
const [base, app, upper, work, merged] = ['base', 'app', 'upper', 'work', 'merged'].map(
  name => `${top}/${name}`,
)

const bold = text => (process.stdout.isTTY ? `\x1b[1m${text}\x1b[0m` : text)
const title = text => console.log(`\n${bold(text)}`)
const short = text => text.replaceAll(top, '.')
const run = (command, ...args) => {
  const shown = command === 'sh' ? args.slice(1) : [command, ...args]
  console.log(`$ ${short(shown.join(' '))}`)
  const program = command === 'tsoverlay' ? cli : command
  const { status, error } = spawnSync(program, args, {
    stdio: 'inherit',
  })
  if (status !== 0) throw new Error(`${command}: ${error?.message ?? `exit status ${status}`}`)
}

/** The files of a directory, one line each. */
const contents = (directory, below = '') =>
  fs
    .readdirSync(`${directory}/${below}`, { withFileTypes: true })
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap(entry => {
      const path = `${below}${entry.name}`
      if (entry.isDirectory()) return [`${path}/`, ...contents(directory, `${path}/`)]
      if (entry.isCharacterDevice()) return [`${path}  (whiteout: a device 0/0)`]
      const text = fs.readFileSync(`${directory}/${path}`, 'utf8').trim().replaceAll('\n', ' / ')
      return [`${path}  "${text}"`]
    })

const show = () => {
  for (const [name, directory] of Object.entries({ merged, upper, app, base })) {
    const role = { merged: 'the union', upper: 'writable' }[name] ?? 'read-only'
    console.log(`  ${name} (${role})`)
    const lines = contents(directory)
    for (const line of lines.length === 0 ? ['(empty)'] : lines) console.log(`    ${line}`)
  }
}

let mounted = false
let failed = false
try {
  for (const directory of [base, app, upper, work, merged]) fs.mkdirSync(directory)
  fs.mkdirSync(`${base}/etc`)
  fs.writeFileSync(`${base}/etc/hosts`, 'from base\n')
  fs.writeFileSync(`${base}/etc/motd`, 'from base\n')
  fs.writeFileSync(`${base}/readme`, 'from base\n')
  fs.mkdirSync(`${app}/bin`)
  fs.writeFileSync(`${app}/bin/app`, 'from app\n')
  fs.writeFileSync(`${app}/readme`, 'from app, hides the one in base\n')

  title('Three layers become one tree')
  const namespace = inNamespace ? ',userxattr' : ''
  const options = `lowerdir=${app}:${base},upperdir=${upper},workdir=${work}${namespace}`
  run('tsoverlay', 'mount', '-o', options, merged)
  mounted = true
  show()

  title('Create: a new file goes to the upper layer')
  run('sh', '-c', `echo created > ${merged}/etc/new`)
  show()

  title('Edit: the file is copied up first; the lower layer keeps its own')
  run('sh', '-c', `echo edited >> ${merged}/etc/hosts`)
  show()

  title('Delete: a whiteout in the upper layer hides the name below')
  run('rm', `${merged}/etc/motd`)
  show()

  title('Unmount: the layers stay as they are')
  run('tsoverlay', 'umount', merged)
  mounted = false
  show()
} catch (error) {
  failed = true
  console.error(`\ndemo failed: ${error.message}`)
} finally {
  if (mounted) spawnSync('umount', ['-l', merged], { stdio: 'inherit' })
  spawnSync('rm', ['-rf', '--one-file-system', top], { stdio: 'inherit' })
}
if (!failed) title('Done; everything was removed again.')
process.exitCode = failed ? 1 : 0

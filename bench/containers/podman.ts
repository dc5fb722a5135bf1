/**
 * Podman and buildah with separate storage for each file system. No network is used: the image is a
 * busybox. All settings lie below the benchmark's directory, so the machine's images and containers
 * are not touched.
 */

import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { findProgram } from '../run/environment.js'
import type { Scratch } from '../run/scratch.js'
import type { System } from '../systems/system.js'
import { run } from '../systems/mounting.js'

export const PROGRAMS = ['podman', 'buildah', 'busybox', 'tar']
export const IMAGE = 'localhost/base'

const DIRECTORIES = 10
const FILES = 20

/** Creates the image: a static busybox and some files. */
const makeImage = (directory: string): string => {
  const top = `${directory}/rootfs`
  for (const name of ['bin', 'etc', 'tmp', 'data', 'proc', 'sys', 'dev', 'run'])
    fs.mkdirSync(`${top}/${name}`, { recursive: true })
  const busybox = findProgram('busybox') ?? ''
  fs.copyFileSync(busybox, `${top}/bin/busybox`)
  for (const name of execFileSync(busybox, ['--list'], { encoding: 'utf8' }).trim().split('\n'))
    if (name !== 'busybox') fs.symlinkSync('busybox', `${top}/bin/${name}`)
  fs.writeFileSync(`${top}/etc/passwd`, 'root:x:0:0::/:/bin/sh\n')
  for (let n = 0; n < DIRECTORIES; n++) {
    fs.mkdirSync(`${top}/data/d${n}`)
    for (let m = 0; m < FILES; m++)
      fs.writeFileSync(`${top}/data/d${n}/f${m}`, `file ${m}\n`.repeat(100))
  }
  const archive = `${directory}/image.tar`
  execFileSync('tar', ['-C', top, '--owner=0', '--group=0', '-cf', archive, '.'])
  fs.rmSync(top, { recursive: true })
  return archive
}

/** The runtime settings that scripts/podman.sh tries, too. */
const RUNTIMES = [
  { runtime: 'crun', cgroups: 'disabled' },
  { runtime: 'crun', cgroups: 'enabled' },
  { runtime: 'runc', cgroups: 'enabled' },
] as const
type Runtime = (typeof RUNTIMES)[number]

/** A limit that podman would raise, reduced to the hard limit of this process. */
const limitOf = (line: string, most: number): number => {
  const limits = fs.readFileSync('/proc/self/limits', 'latin1')
  const hard = new RegExp(`^${line}\\s+\\S+\\s+(\\S+)`, 'm').exec(limits)?.[1] ?? 'unlimited'
  return hard === 'unlimited' ? most : Math.min(most, Number(hard))
}

/** Directories that podman and runtimes create regardless of their configuration. */
const MADE_ELSEWHERE = ['/run/containers/networks', '/run/containers', '/run/runc', '/run/crun']

const removeEmpty = (directory: string): void => {
  try {
    fs.rmdirSync(directory)
  } catch {
    // The directory was not created, or is in use.
  }
}

/** The podman configuration and storage for one file system. */
export class Storage {
  readonly directory: string
  readonly env: NodeJS.ProcessEnv
  readonly #runDirectory: string
  readonly #cgroup: string
  #count = 0

  private constructor(scratch: Scratch, medium: string, index: number) {
    this.#cgroup = scratch.name
    this.directory = `${medium}/containers/${index}`
    // Podman refuses long paths for its runtime files.
    this.#runDirectory = `/run/${scratch.name}.podman/${index}`
    const configuration = `${this.directory}/config`
    for (const at of [configuration, `${this.directory}/tmp`, this.#runDirectory])
      fs.mkdirSync(at, { recursive: true })
    this.env = {
      HOME: this.directory,
      TMPDIR: `${this.directory}/tmp`,
      XDG_RUNTIME_DIR: this.#runDirectory,
      XDG_CONFIG_HOME: undefined,
      XDG_DATA_HOME: undefined,
      DBUS_SESSION_BUS_ADDRESS: undefined,
      CONTAINERS_CONF: `${configuration}/containers.conf`,
      CONTAINERS_STORAGE_CONF: `${configuration}/storage.conf`,
    }
    fs.writeFileSync(
      `${configuration}/policy.json`,
      '{"default": [{"type": "insecureAcceptAnything"}]}\n',
    )
  }

  /**
   * Creates the storage of each file system and imports the image.
   * @throws {Error} no container can be run here
   */
  static async makeAll(
    scratch: Scratch,
    medium: string,
    systems: readonly System[],
  ): Promise<Map<string, Storage>> {
    fs.mkdirSync(`${medium}/containers`)
    const absent = MADE_ELSEWHERE.filter(directory => !fs.existsSync(directory))
    scratch.atEnd(() => absent.forEach(removeEmpty))
    const image = makeImage(`${medium}/containers`)
    const found = new Map<string, Storage>()
    let runtimes: readonly Runtime[] = RUNTIMES.filter(({ runtime }) => findProgram(runtime))
    for (const [index, system] of systems.entries()) {
      const storage = new Storage(scratch, medium, index)
      storage.#configureStorage(system)
      runtimes = [await storage.#findRuntime(runtimes, image)]
      found.set(system.name, storage)
    }
    return found
  }

  /** Runs a command with this storage; `more` is added to its environment. */
  run(words: readonly string[], more: NodeJS.ProcessEnv = {}): Promise<string> {
    const log = `${this.directory}/log${this.#count++}`
    return run(words, { cwd: this.directory, log, env: { ...this.env, ...more } })
  }

  /** The command line that runs a script in a container. */
  container(script: string): string[] {
    const options = ['--rm', '--network', 'none', ...this.cgroupParent]
    return ['podman', 'run', ...options, IMAGE, 'sh', '-ec', script]
  }

  /** The parent cgroup of containers, which the benchmark removes at the end. */
  get cgroupParent(): string[] {
    return ['--cgroup-parent', `/${this.#cgroup}`]
  }

  #configureStorage({ mountProgram }: System): void {
    const program =
      typeof mountProgram === 'string'
        ? `[storage.options.overlay]\nmount_program = "${mountProgram}"\n`
        : ''
    fs.writeFileSync(
      this.env['CONTAINERS_STORAGE_CONF'] ?? '',
      `[storage]
driver = "overlay"
graphroot = "${this.directory}/storage"
runroot = "${this.#runDirectory}"
[storage.options]
${program}`,
    )
  }

  #configureContainers({ runtime, cgroups }: Runtime): void {
    const files = limitOf('Max open files', 1048576)
    const processes = limitOf('Max processes', 32768)
    fs.writeFileSync(
      this.env['CONTAINERS_CONF'] ?? '',
      `[containers]
netns = "none"
cgroups = "${cgroups}"
default_ulimits = ["nofile=${files}:${files}", "nproc=${processes}:${processes}"]
log_driver = "k8s-file"
[engine]
runtime = "${runtime}"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "${this.#runDirectory}/libpod"
image_copy_tmp_dir = "${this.directory}/tmp"
`,
    )
  }

  /** Finds the first setting that can run a container. */
  async #findRuntime(runtimes: readonly Runtime[], image: string): Promise<Runtime> {
    let reason = 'neither crun nor runc is installed'
    for (const runtime of runtimes) {
      this.#configureContainers(runtime)
      try {
        await this.run(['podman', 'import', '-q', image, IMAGE])
        await this.run(this.container('true'))
        return runtime
      } catch (error) {
        reason = error instanceof Error ? error.message : String(error)
      }
    }
    throw new Error(reason)
  }
}

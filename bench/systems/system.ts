/** A file system that can show a union: a command that mounts it, and what is known about it. */

/** The directories of one union. */
export interface Layers {
  /**
   * The top one first. Relative to the working directory of the command: many long paths are more
   * than mount(2) takes.
   */
  lowers: readonly string[]
  upper: string
  work: string
  mountpoint: string
}

export interface System {
  name: string
  /** `own`: this project; what fails in it fails the benchmark. */
  kind: 'kernel' | 'own' | 'peer'
  /** What it says its version is. */
  version: string
  /** The words of a command that returns when the mount is live. */
  command: (layers: Layers, ownServer?: boolean) => string[]
  /**
   * The program as podman's mount_program; null: the kernel needs none; undefined: it takes other
   * arguments.
   */
  mountProgram?: string | null
}

/** The options that kernel overlayfs has made the usual ones. */
export const overlayOptions = ({ lowers, upper, work }: Layers): string =>
  `lowerdir=${lowers.join(':')},upperdir=${upper},workdir=${work}`

/** A file system that can mount a union: its mount command and properties. */

/** The directories of one union. */
export interface Layers {
  /**
   * The topmost layer comes first. The paths are relative to the working directory of the command,
   * because mount(2) does not accept many long paths.
   */
  lowers: readonly string[]
  upper: string
  work: string
  mountpoint: string
}

export interface System {
  name: string
  /** `own`: this project; its failures make the benchmark fail. */
  kind: 'kernel' | 'own' | 'peer'
  /** The output of its version option. */
  version: string
  /** A command that returns when the mount is live. */
  command: (layers: Layers, ownServer?: boolean) => string[]
  /**
   * The program for podman's mount_program; null: the kernel needs none; undefined: it has another
   * command line.
   */
  mountProgram?: string | null
}

/** The mount options of kernel overlayfs. */
export const overlayOptions = ({ lowers, upper, work }: Layers): string =>
  `lowerdir=${lowers.join(':')},upperdir=${upper},workdir=${work}`

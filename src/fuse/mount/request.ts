/** The request to mount a connection. */

/** Mounted with mount(2), or by fusermount3. */
export type MountWay = 'mount' | 'fusermount'

export interface MountRequest {
  mountpoint: string
  /** The source that /proc/mounts shows. */
  fsname: string
  subtype: string
  allowOther: boolean
  /** MS_* */
  flags: number
}

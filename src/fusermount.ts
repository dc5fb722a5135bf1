import { accessSync, constants } from 'node:fs'

/** The set-uid helper that mounts for ordinary users, where it is installed. */
export const findFusermount = (): string | undefined => {
  for (const name of ['fusermount3', 'fusermount']) {
    for (const folder of ['/usr/bin', '/bin', '/usr/local/bin']) {
      try {
        accessSync(`${folder}/${name}`, constants.X_OK)
        return `${folder}/${name}`
      } catch {
        // not here
      }
    }
  }
  return undefined
}

/** The files of this package that are the entry point of a process or a thread. */

/** Whether this is the built program. False: a loader runs the sources, as in the tests. */
export const BUILT = !import.meta.url.endsWith('.ts')

/**
 * The URL of an entry point. In `dist`, each is in a subdirectory at the top:
 * `overlay/jobs/worker.ts` becomes `overlay/jobs-worker.cjs` (scripts/build.mjs). So `..` has the
 * same meaning in all of them and in this source.
 * @param source the path below `src`, without its extension
 */
export const entryPoint = (source: string): URL => {
  const [top = '', ...rest] = source.split('/')
  return new URL(BUILT ? `../${top}/${rest.join('-')}.cjs` : `../${source}.ts`, import.meta.url)
}

/** The files of this package that run as a process or a thread of their own. */

/**
 * Whether this is the built program. False: a loader runs the sources themselves, as in the tests.
 */
export const BUILT = !import.meta.url.endsWith('.ts')

/**
 * Each such file lies in a subdirectory of `dist` that has no further ones:
 * `overlay/jobs/worker.ts` becomes `overlay/jobs-worker.cjs` (scripts/build.mjs). So `..` leads to
 * the same place from all of them, and from this source.
 * @param source the path below `src`, without its extension
 */
export const entryPoint = (source: string): URL => {
  const [top = '', ...rest] = source.split('/')
  return new URL(BUILT ? `../${top}/${rest.join('-')}.cjs` : `../${source}.ts`, import.meta.url)
}

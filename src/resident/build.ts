/** Which build of the package this is. */

// The build writes it (scripts/build.mjs): a hash over all that it has made, so that two builds of
// one version differ.
declare const BUILD_HASH: string

/** Sources that run without a build have none, and ask no server. */
export const build = typeof BUILD_HASH === 'undefined' ? 'sources' : BUILD_HASH

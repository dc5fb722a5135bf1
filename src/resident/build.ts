/** Identifies the build of the package. */

// scripts/build.mjs defines it: a hash of all build output, so that two builds of one version
// differ.
declare const BUILD_HASH: string

/** Sources that run without a build have no hash, and ask no server. */
export const build = typeof BUILD_HASH === 'undefined' ? 'sources' : BUILD_HASH

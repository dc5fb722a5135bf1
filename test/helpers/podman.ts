import { spawnSync } from 'node:child_process'

import t from 'tap'

import { skipMounts, test } from './mount.js'
import { runSteps } from './steps.js'

const skip =
  skipMounts ||
  (spawnSync('podman', ['--version']).status !== 0 && 'needs podman (packages podman, buildah)')

/** Tests podman and buildah with this program as their mount program, one after the other. */
export const podman = (...all: readonly string[]): void => {
  for (const mode of all)
    test(t, `podman: ${mode}`, { skip }, t => runSteps(t, ['podman.sh', mode]))
}

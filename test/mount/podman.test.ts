/** Podman and buildah with this program as their mount program. */

import { spawnSync } from 'node:child_process'

import t from 'tap'

import { skipMounts, test } from '../helpers/mount.js'
import { runSteps } from '../helpers/steps.js'

const noPodman =
  skipMounts ||
  (spawnSync('podman', ['--version']).status !== 0 && 'needs podman (packages podman, buildah)')

for (const who of ['root', 'rootless', 'nested']) {
  test(t, `podman: ${who}`, { skip: noPodman }, t => runSteps(t, ['podman.sh', who]))
}

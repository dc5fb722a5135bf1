/** Tests Docker with this program as fuse-overlayfs, for the storage driver of that name. */

import { spawnSync } from 'node:child_process'

import t from 'tap'

import { skipMounts, test } from '../helpers/mount.js'
import { runSteps } from '../helpers/steps.js'

const noDocker =
  skipMounts ||
  (spawnSync('dockerd', ['--version']).status !== 0 && 'needs dockerd (package docker.io)')

test(t, 'docker', { skip: noDocker }, t => runSteps(t, ['docker.sh']))

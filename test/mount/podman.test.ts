/**
 * Tests podman and buildah with this program as their mount program, with a server for each mount.
 */

import { podman } from '../helpers/podman.js'

podman('root', 'rootless', 'nested')

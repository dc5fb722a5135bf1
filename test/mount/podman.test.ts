/** Podman and buildah with this program as their mount program, a process for each mount. */

import { podman } from '../helpers/podman.js'

podman('root', 'rootless', 'nested')

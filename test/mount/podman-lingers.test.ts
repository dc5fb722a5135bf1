/** Tests podman and buildah with the resident server that the first mount has started. */

import { podman } from '../helpers/podman.js'

podman('root:lingers', 'rootless:lingers')

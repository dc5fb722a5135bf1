/** Podman and buildah with a resident server of `server start`. */

import { podman } from '../helpers/podman.js'

podman('root:stays', 'rootless:stays')

/** Tests podman and buildah with a resident server started by `server start`. */

import { podman } from '../helpers/podman.js'

podman('root:stays', 'rootless:stays')

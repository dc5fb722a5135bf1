#!/bin/sh
# The program `tsoverlay`, and `fuse-overlayfs` and `mount.tsoverlay` by other names. Whoever starts Node waits for it
# to start, and a mount in the background would need it twice: here this shell takes the place of the first one.
# It knows the two commonest command lines of a mount in the background; everything else, and whatever it is not
# sure of, goes to main.cjs.

self=$(readlink -f -- "$0") || exit 2
here=${self%/*}
export TSOVERLAY_CALLED_AS="${0##*/}"

in_background() {
  case $TSOVERLAY_CALLED_AS:${1-} in
    mount.*) return 1 ;;
    fuse-overlayfs:-o* | *:mount | *:-o*) ;;
    *) return 1 ;;
  esac
  for arg; do
    case $arg in
      -o*) ;;
      -*) return 1 ;;
    esac
  done
}

in_background "$@" || exec node "$here/main.cjs" "$@"

# What daemon.ts does, which has the reasons.
unset NODE_EXTRA_CA_CERTS
export TSOVERLAY_LAUNCHER="$$"
server=
trap 'exit 0' USR2
trap 'trap "" USR2; [ -z "$server" ] || { kill "$server"; wait "$server"; } 2>/dev/null; exit 8' INT TERM HUP
node "$here/server.cjs" "$@" </dev/null >/dev/null &
server=$!
wait "$server"
status=$?
[ "$status" -ne 0 ] || exit 2
[ "$status" -gt 128 ] || exit "$status"
echo "tsoverlay: the server was ended by signal $((status - 128)) before the mount was live" >&2
exit 2

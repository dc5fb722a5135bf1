#!/usr/bin/env bash
# Tests podman and buildah with tsoverlay as their mount program. The steps import, run, change,
# compare, build and remove images, first as root, then as an ordinary user ("rootless"). No network
# is used: the image is a busybox.
#
# Usage: scripts/podman.sh [root|rootless|nested][:SERVER]...   (default: root and rootless)
#   nested            root, with images and containers in a union, as in a container
#   SERVER            the server of the unions: `own`, a process for each (the default);
#                     `lingers`, the resident server of the first union;
#                     `stays`, a server started by `server start`
#   MOUNT_PROGRAM     another mount program, such as fuse-overlayfs, for comparison
#   TMPDIR            where images and containers are kept; not a container's own overlay
#   VERBOSE           also shows the output of successful steps
#
# It needs root, /dev/fuse, node, podman, buildah, a static busybox, and newuidmap (package uidmap)
# for `rootless`. It works in a mount namespace of its own: the ordinary user exists only in that
# namespace, and no file of the machine is changed. Each step prints `ok` or `FAILED`. The last line
# is `N passed, N failed`, and the exit status is 0 if nothing failed. If podman can't run a
# container with any mount program, the last line begins with `skipped:` and the exit status is 77.
set -u
script=$(realpath "$0")
repository=${script%/scripts/*}

skip() {
  echo "skipped: $*"
  exit 77
}

# shellcheck source=scripts/container-steps.sh
. "${script%/*}/container-steps.sh"

# ---- The steps.

run() { podman run --rm "$@"; }

import() {
  podman import -q "$top/rootfs.tar" base >/dev/null
  same images "$(podman images --format '{{.Repository}}')" localhost/base
}

union() {
  same program "$(podman info -f '{{index .Store.GraphOptions "overlay.mount_program"}}' |
    sed -n 's/.*Executable:\([^ ]*\).*/\1/p')" "$top/bin/mount-program"
  same 'file system, a file, an owner' "$(run base sh -c 'stat -f -c %t /; cat /etc/word; stat -c %u:%g /etc/owned')" \
    $'65735546\nfrom the image\n7:8'
}

# Makes the changes that the next steps check.
modify() {
  podman run --name work base sh -ec "$modification"
}

changes() {
  same diff "$(podman diff work | sort)" "$(sort <<<"$differences")"
}

commit() {
  podman commit -q work changed >/dev/null
  run changed sh -c "$listing" >"$top/committed"
  modified
}

restart() {
  podman run -d --name server base sh -c 'while :; do echo . >>/data/log; sleep 0.1; done' >/dev/null
  podman exec server sh -c 'echo kept >/data/kept'
  podman stop -t 0 server >/dev/null
  same 'mounts of a stopped container' "$(unions)" ''
  podman start server >/dev/null
  same 'after a restart' "$(podman exec server cat /data/kept)" kept
  podman exec server test -s /data/log
  podman rm -f -t 0 server >/dev/null # running, with open files
  same 'mounts of a removed container' "$(unions)" ''
}

several() {
  local i pids=()
  for i in 1 2 3 4; do
    run changed sh -c "echo $i >/data/i; cp -r /bin /data/bin; cat /data/i" >"$top/several.$i" &
    pids+=($!)
  done
  for i in "${pids[@]}"; do wait "$i"; done
  same 'four at once' "$(cat "$top"/several.?)" $'1\n2\n3\n4'
}

export_() {
  podman export -o "$top/export.tar" work
  tar -tvf "$top/export.tar" >"$top/export"
  grep -q ' \./\?etc/after$\| etc/after$' "$top/export"
  same 'removed files' "$(grep -cE 'etc/(gone|before)$|full/|again/old$|\.wh\.' "$top/export" || true)" 0
  podman import -q "$top/export.tar" flat >/dev/null
  run flat sh -c "$listing" >"$top/flat"
  same 'imported again' "$(cat "$top/flat")" "$(cat "$top/committed")"
  podman rmi flat >/dev/null
}

save() {
  podman save -q -o "$top/save.tar" changed
  podman rmi -f changed >/dev/null
  podman load -q -i "$top/save.tar" >/dev/null
  same 'loaded again' "$(run changed sh -c "$listing")" "$(cat "$top/committed")"
}

copy() {
  podman create --name copies base sleep 100 >/dev/null
  mkdir -p "$top/in/directory"
  echo in >"$top/in/directory/file"
  podman cp "$top/in/directory" copies:/data/
  podman cp copies:/etc/word "$top/in/word"
  same 'out of a container' "$(cat "$top/in/word")" 'from the image'
  podman start copies >/dev/null
  same 'into a container' "$(podman exec copies cat /data/directory/file)" in
  podman cp "$top/in/word" copies:/data/running
  same 'into a running one' "$(podman exec copies cat /data/running)" 'from the image'
  podman exec copies sh -c 'rm /etc/word; echo out >/data/out'
  podman cp copies:/data/out - | tar -xO | cmp - <(echo out)
  if podman cp copies:/etc/word "$top/in/none" 2>/dev/null; then false; fi
  podman rm -f -t 0 copies >/dev/null
}

# Changes a container's root from outside. An ordinary user does this within `podman unshare`.
outside() {
  podman create --name outside base cat /data/outside /etc/word >/dev/null
  # shellcheck disable=SC2016 # for the other shell
  as_owner 'm=$(podman mount outside) && echo outside >"$m/data/outside" && rm "$m/etc/gone" &&
    setfattr -n user.name -v value "$m/data/outside" && setcap cap_net_raw+ep "$m/data/mode" &&
    podman unmount outside'
  same 'started after it' "$(podman start -a outside)" $'outside\nfrom the image'
  podman commit -q outside attributes >/dev/null
  podman rm outside >/dev/null
  podman create --name outside attributes >/dev/null
  # shellcheck disable=SC2016 # for the other shell
  same 'attributes, committed' "$(as_owner 'cd $(podman mount outside)/data &&
    getfattr --only-values -n user.name outside && echo && getcap mode; cd / && podman unmount outside >/dev/null')" \
    $'value\nmode cap_net_raw=ep'
  podman rm outside >/dev/null
  podman rmi attributes >/dev/null
}

as_owner() { if [ "$mode" = rootless ]; then podman unshare bash -ec "$1"; else bash -ec "$1"; fi; }

readonly_() {
  same 'a file' "$(run --read-only base sh -c 'cat /etc/word; touch /data/x 2>&1')" \
    $'from the image\ntouch: /data/x: Read-only file system'
  same 'an image as a volume' "$(run --mount type=image,source=changed,destination=/image base \
    cat /image/etc/word)" changed
}

# Host directories that stay unchanged.
volumes() {
  mkdir -p "$top/volume/sub"
  echo host >"$top/volume/file"
  echo host >"$top/volume/sub/file"
  same 'in the container' "$(run -v "$top/volume:/volume:O" base sh -ec '
    echo container >/volume/file; rm -r /volume/sub; echo new >/volume/new; cat /volume/*; ls /volume')" \
    $'container\nnew\nfile\nnew'
  same 'on the host' "$(cd "$top/volume" && find . -type f | sort | xargs cat)" $'host\nhost'
  mkdir -p "$top/upper" "$top/work"
  run -v "$top/volume:/volume:O,upperdir=$top/upper,workdir=$top/work" base sh -c 'echo kept >/volume/kept'
  same 'kept changes' "$(run -v "$top/volume:/volume:O,upperdir=$top/upper,workdir=$top/work" base \
    cat /volume/kept /volume/file)" $'kept\nhost'
  same 'mounts left' "$(unions)" ''
}

build_scratch() {
  mkdir -p "$top/context"
  cp "$top/rootfs.tar" "$top/context/"
  echo copied >"$top/context/file"
  cat >"$top/context/Containerfile.scratch" <<'END'
FROM scratch AS made
ADD rootfs.tar /
COPY file /etc/copied
RUN echo one >/etc/one && rm /etc/gone && rm -r /full
RUN mkdir /full && echo again >/full/again && mv /etc/one /etc/two
FROM scratch
COPY --from=made / /
CMD ["cat", "/full/again", "/etc/two", "/etc/copied"]
END
  podman build -q "${build[@]}" -t scratch-made -f "$top/context/Containerfile.scratch" "$top/context" >/dev/null
  same 'the result' "$(run scratch-made)" $'again\none\ncopied'
  same 'removed files' "$(run scratch-made sh -c 'ls /full /etc/gone 2>&1')" \
    $'ls: /etc/gone: No such file or directory\n/full:\nagain'
}

build_base() {
  cat >"$top/context/Containerfile" <<'END'
FROM localhost/base
RUN echo build >>/etc/word && rm -r /again && mkdir /again && echo built >/again/built
COPY file /again/copied
RUN chown 9:9 /data/owner && rm /etc/gone
USER 1
END
  podman build "${build[@]}" --layers -t built "$top/context" >"$top/build.log" 2>&1 || {
    cat "$top/build.log"
    false
  }
  same 'the result' "$(run built sh -c 'cat /etc/word /again/*; id -u; stat -c %u /data/owner; ls /etc/gone 2>&1')" \
    $'from the image\nbuild\nbuilt\ncopied\n1\n9\nls: /etc/gone: No such file or directory'
  same 'again' "$(podman build "${build[@]}" --layers -t built "$top/context" 2>&1 | grep -c 'Using cache')" 4
}

by_buildah() {
  local c
  c=$(buildah from localhost/base)
  buildah run "${build[@]}" "$c" -- sh -c 'echo buildah >/etc/word; rm -r /full'
  buildah copy -q "$c" "$top/context/file" /data/copied >/dev/null
  buildah config --cmd 'cat /etc/word /data/copied' "$c"
  buildah commit -q "$c" by-buildah >/dev/null
  buildah rm "$c" >/dev/null
  same 'run by podman' "$(run by-buildah)" $'buildah\ncopied'
  same 'removed files' "$(run by-buildah ls / | grep -c full || true)" 0
  printf 'FROM localhost/base\nRUN echo built >/etc/built\n' >"$top/context/Containerfile.bud"
  buildah bud -q "${build[@]}" -t by-bud -f "$top/context/Containerfile.bud" "$top/context" >/dev/null
  same 'a Containerfile' "$(run by-bud cat /etc/built)" built
  same 'mounts left' "$(unions)" ''
}

# Many small files, written and removed as a package manager does.
many() {
  # shellcheck disable=SC2016 # for the shell of the container
  same 'files' "$(run base sh -ec '
    mkdir /data/many && cd /data/many
    for d in 1 2 3 4 5 6 7 8 9 10; do
      mkdir $d; i=0; while [ $i -lt 50 ]; do i=$((i + 1)); echo $i >$d/$i; done
    done
    tar -C /data -cf /tmp/many.tar many && rm -r /data/many && tar -C /data -xf /tmp/many.tar
    mv /data/many /data/moved && find /data/moved -type f | wc -l')" 500
}

mapped() {
  local map
  if [ "$mode" = root ]; then map=(--uidmap 0:300000:65536 --gidmap 0:300000:65536); else map=(--userns=keep-id); fi
  local own=0:0
  [ "$mode" = root ] || own="$(id -u):$(id -g)"
  same 'owners in it' "$(run "${map[@]}" base sh -ec '
    stat -c %u:%g /etc/word /etc/owned; echo x >/tmp/x; stat -c %u:%g /tmp/x')" "0:0
7:8
$own"
}

automatic() {
  same 'owners in it' "$(run --userns=auto base stat -c %u:%g /etc/word /etc/owned)" $'0:0\n7:8'
}

# The mounts of unions in the storage directory. Unions in other namespaces are not visible.
unions() {
  # Podman bind-mounts the storage directory over itself. If that lies in a union, the bind mount is
  # a FUSE mount, too.
  grep -F " - fuse" /proc/self/mountinfo |
    awk -v a="$top/" 'index($5, a) == 1 && $5 != a "overlay/overlay" { print $5 }'
}

# The processes that name the storage directory or serve mounts there, except this script's own.
servers() {
  local pid
  for pid in /proc/[0-9]*; do
    tr '\0' ' ' 2>/dev/null <"$pid/cmdline" | grep -E "^tsoverlay server|$top/" | grep -q '/merged\|overlay' && echo "${pid#/proc/}"
  done
  return 0
}

# Runs a `tsoverlay server` command. A rootless server lives in the user namespace that podman has
# created.
server() { as_owner "'$repository/dist/cli/tsoverlay' server $1"; }

start_server() {
  server start
  has_mounts 0
}

# One process serves all containers.
shared() {
  local all=() i
  for i in 1 2 3 4 5 6; do
    all+=("shared$i")
    podman run -d --name "shared$i" changed sleep 1000 >/dev/null
  done
  same servers "$(grep -lE '^tsoverlay (mount|server)' /proc/[0-9]*/cmdline 2>/dev/null | wc -l)" 1
  has_mounts 6
  for i in 1 2 3 4 5 6; do podman exec "shared$i" sh -ec "echo $i >/data/i; rm /etc/word"; done
  for i in 1 2 3 4 5 6; do
    same "container $i" "$(podman exec "shared$i" cat /data/i)" "$i"
    same "differences of $i" "$(podman diff "shared$i" | sort)" $'A /data/i\nC /data\nC /etc\nD /etc/word'
  done
  podman rm -f -t 0 "${all[@]}" >/dev/null
  has_mounts 0
}

# Waits for the expected status: a mount disappears before its layers are closed.
has_mounts() {
  local i status wanted="process N, $1 mounts"
  [ "$server" = stays ] || wanted+=', ends without mounts'
  for i in {1..100}; do
    status=$(server status | sed -n '1s/process [0-9]*/process N/p')
    [ "$status" != "$wanted" ] || return 0
    sleep 0.1
  done
  same 'status of the server' "$status" "$wanted"
}

clean() {
  podman rm -fa -t 0 >/dev/null
  buildah rm -a >/dev/null
  podman rmi -fa >/dev/null
  same images "$(podman images -aq)" ''
  same mounts "$(unions)" ''
  local i
  if [ "$server" != own ]; then
    server stop
    # Servers of ended namespaces end by themselves.
    for i in {1..50}; do
      [ -n "$(files_of_servers)" ] || break
      sleep 0.1
    done
    same 'files of the server' "$(files_of_servers)" ''
  fi
  for i in {1..50}; do
    [ -n "$(servers)" ] || return 0
    sleep 0.1
  done
  same servers "$(for i in $(servers); do tr '\0' ' ' <"/proc/$i/cmdline"; done)" ''
}

files_of_servers() {
  find "/run/$TSOVERLAY_SERVER" "$XDG_RUNTIME_DIR/$TSOVERLAY_SERVER" -mindepth 1 2>/dev/null
}

# ---- Setup.

# Sets the directories and variables of podman and buildah, all below $top.
surroundings() {
  # Podman runs itself to clean up after a container, without some of the variables. So the
  # configuration lies in the default place of an ordinary user.
  local configuration=$top/home/.config/containers
  mkdir -p "$configuration" "$top"/{bin,tmp,overlay}
  chmod 711 "$top/overlay" # mapped users must reach files below it
  export HOME=$top/home XDG_RUNTIME_DIR=/run/user/$UID TMPDIR=$top/tmp
  unset XDG_CONFIG_HOME XDG_DATA_HOME DBUS_SESSION_BUS_ADDRESS
  export CONTAINERS_CONF=$configuration/containers.conf CONTAINERS_STORAGE_CONF=$configuration/storage.conf
  ln -sfn "${MOUNT_PROGRAM:-$repository/dist/cli/tsoverlay}" "$top/bin/mount-program"
  echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$configuration/policy.json"
}

# storage_conf DRIVER
storage_conf() {
  cat >"$CONTAINERS_STORAGE_CONF" <<END
[storage]
driver = "$1"
graphroot = "$top/$1"
rootless_storage_path = "$top/$1"
runroot = "$XDG_RUNTIME_DIR/containers"
[storage.options]
root-auto-userns-user = "$user"
[storage.options.overlay]
mount_program = "$top/bin/mount-program"
END
}

# containers_conf RUNTIME CGROUPS
containers_conf() {
  # If root may not raise limits, limits above the current ones are refused. podman lowers the
  # process limit itself.
  local files processes
  files=$(ulimit -Hn) processes=$(ulimit -Hu)
  [ "$files" != unlimited ] && [ "$files" -lt 1048576 ] || files=1048576
  [ "$processes" != unlimited ] && [ "$processes" -lt 32768 ] || processes=32768
  cat >"$CONTAINERS_CONF" <<END
[containers]
netns = "none"
cgroups = "$2"
default_ulimits = ["nofile=$files:$files", "nproc=$processes:$processes"]
log_driver = "k8s-file"
[engine]
runtime = "$1"
cgroup_manager = "cgroupfs"
events_logger = "file"
image_copy_tmp_dir = "$top/tmp"
END
}

# Finds a runtime and cgroup setting that can run containers here, without a mount program.
# Otherwise the script is skipped.
find_runtime() {
  local runtime cgroups said
  storage_conf vfs
  for runtime in crun:disabled crun:enabled runc:enabled; do
    cgroups=${runtime#*:} runtime=${runtime%:*}
    command -v "$runtime" >/dev/null || continue
    containers_conf "$runtime" "$cgroups"
    podman image exists probe 2>/dev/null || podman import -q "$top/rootfs.tar" probe
    if run probe true; then
      podman rmi -f probe
      # podman's record of its storage is not valid for another driver.
      rm -rf --one-file-system "$XDG_RUNTIME_DIR/containers" "$top/vfs"
      storage_conf overlay
      return
    fi
  done >"$top/probe" 2>&1
  said=$(grep -a 'Error' "$top/probe" | tail -1)
  skip "$mode: podman runs no container here: ${said:-neither crun nor runc is installed}"
}

steps() {
  build=(--network=none)
  surroundings
  rootfs
  find_runtime
  [ "$server" != stays ] || step 'server start' start_server
  step 'podman import' import
  step 'podman run: the root is a union' union
  step 'changes in a container' modify
  step 'podman diff' changes
  step 'podman commit, and running the new image' commit
  step 'podman stop, start, exec, rm -f' restart
  step 'four containers at once' several
  [ "$server" = own ] || step 'all containers have one server' shared
  step 'podman export, and importing the archive' export_
  step 'podman save and load' save
  step 'podman cp' copy
  step 'volumes with :O' volumes
  step 'many small files' many
  if [ "$mode" = nested ]; then
    step 'nothing is left' clean
    return
  fi
  step 'podman mount, changes from outside' outside
  step 'read-only containers, images as volumes' readonly_
  step 'podman build FROM scratch, two stages' build_scratch
  step 'podman build FROM an image, and its cache' build_base
  step 'buildah from, run, copy, commit, bud' by_buildah
  step 'mapped users' mapped
  # An ordinary user has no subordinate ids that podman would choose automatically.
  [ "$mode" != root ] || step '--userns=auto' automatic
  step 'nothing is left' clean
}

# ---- The users that run the steps.

user=tsoverlay-podman
uid=54321

# The second half of this script, in a mount namespace of its own; $1 is the mode and server, $2 the
# directory.
if [ "${TSOVERLAY_PODMAN:-}" = namespace ]; then
  mode=${1%%:*} server=${1#*:} top=$2
  export TSOVERLAY_SERVER=
  [ "$server" = own ] || TSOVERLAY_SERVER=unions
  # Podman refuses long paths for its runtime files, and the ordinary user can't reach root's
  # directories.
  mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/{user/0,user/$uid,scratch,tsoverlay} || exit 2
  mount --bind "$top" /run/scratch && mount --bind "$repository" /run/tsoverlay || exit 2
  top=/run/scratch script=/run/tsoverlay/${script#"$repository/"}
  # The user exists only in this namespace.
  for file in passwd group subuid subgid; do
    [ -e "/etc/$file" ] || continue
    cp "/etc/$file" "$top/$file"
    case $file in
      passwd) echo "$user:x:$uid:$uid::$top/home:/bin/sh" ;;
      group) echo "$user:x:$uid:" ;;
      *) echo "$user:600000:262144" ;;
    esac >>"$top/$file"
    chmod 644 "$top/$file"
    mount --bind "$top/$file" "/etc/$file" || exit 2
  done
  mknod -m 666 "$top/fuse" c 10 229 && mount --bind "$top/fuse" /dev/fuse || exit 2
  export TSOVERLAY_PODMAN=steps
  if [ "$mode" = rootless ]; then
    mkdir "$top/own" && chown $uid:$uid "$top/own" /run/user/$uid && chmod 700 /run/user/$uid || exit 2
    exec setpriv --reuid=$uid --regid=$uid --clear-groups bash "$script" "$1" "$top/own"
  fi
  if [ "$mode" = nested ]; then
    mkdir "$top"/{lower,upper,work,union} || exit 2
    "$repository/dist/cli/tsoverlay" mount \
      -o "lowerdir=$top/lower,upperdir=$top/upper,workdir=$top/work" "$top/union" || exit 2
    top=$top/union
  fi
  exec bash "$script" "$1" "$top"
fi
if [ "${TSOVERLAY_PODMAN:-}" = steps ]; then
  mode=${1%%:*} server=${1#*:} top=$2
  label=$mode
  [ "$server" = own ] || label="$mode, $server"
  unset TSOVERLAY_PODMAN
  cd "$top" || exit 2
  trap 'podman rm -fa -t 0 >/dev/null 2>&1; [ "$mode" != rootless ] || podman system migrate >/dev/null 2>&1' EXIT
  trap 'exit 130' INT TERM HUP # the first process of a namespace ignores signals without a handler
  steps
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
  exit
fi

[ "$(id -u)" = 0 ] || skip 'needs root'
[ -c /dev/fuse ] || skip 'needs /dev/fuse'
for program in podman buildah busybox node unshare setpriv setfattr setcap; do
  command -v $program >/dev/null || skip "needs $program"
done
[ -n "${MOUNT_PROGRAM:-}" ] || [ -x "$repository/dist/cli/tsoverlay" ] || skip 'needs the built program: npm run build'

scratch=$(mktemp -d "${TMPDIR:-/tmp}/tsoverlay-podman-XXXXXX") || exit 2
scratch=$(realpath "$scratch")
chmod 755 "$scratch"
trap 'rm -rf --one-file-system "$scratch"' EXIT
trap 'exit 130' INT TERM HUP

[ $# -gt 0 ] || set -- root rootless
[[ " $* " != *' rootless'* ]] || command -v newuidmap >/dev/null || skip 'rootless: needs newuidmap'
passed=0 failed=0
for mode in "$@"; do
  [[ $mode == *:* ]] || mode=$mode:own
  directory=${mode/:/-}
  mkdir "$scratch/$directory"
  chmod 755 "$scratch/$directory"
  # A process namespace, too: podman expects its zombies to be reaped, and no process outlives the
  # namespace.
  TSOVERLAY_PODMAN=namespace unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
    bash "$script" "$mode" "$scratch/$directory" |
    tee "$scratch/$directory.log" | grep --line-buffered -vxE '[0-9]+ passed, [0-9]+ failed'
  last=$(tail -n 1 "$scratch/$directory.log")
  case $last in
    skipped:*) exit 77 ;;
    *' passed, '*' failed') ;;
    *)
      echo "FAILED $mode: did not finish"
      last='0 passed, 1 failed'
      ;;
  esac
  read -r p _ f _ <<<"$last"
  passed=$((passed + p)) failed=$((failed + f))
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

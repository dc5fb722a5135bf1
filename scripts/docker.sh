#!/usr/bin/env bash
# Tests Docker with tsoverlay in place of fuse-overlayfs, for the storage driver of that name. The
# steps import, build, run, change, compare, save and remove images. All containers share a resident
# server. No network is used: the image is a busybox.
#
# Usage: scripts/docker.sh
#   MOUNT_PROGRAM     another mount program, such as fuse-overlayfs, for comparison
#   TMPDIR            where images and containers are kept; not a container's own overlay
#   VERBOSE           also shows the output of successful steps
#
# It needs root, /dev/fuse, node, dockerd, docker, containerd, runc and a static busybox. dockerd
# runs in mount, process and network namespaces of its own, and in a cgroup of its own, so the
# machine is not changed. Each step prints `ok` or `FAILED`. The last line is `N passed, N failed`,
# and the exit status is 0 if nothing failed. If docker can't run a container with any storage
# driver, the last line begins with `skipped:` and the exit status is 77.
set -u
script=$(realpath "$0")
repository=${script%/scripts/*}
label=docker

skip() {
  echo "skipped: $*"
  exit 77
}

# shellcheck source=scripts/container-steps.sh
. "${script%/*}/container-steps.sh"

# ---- The steps.

run() { docker run --network none --rm "$@"; }

import() {
  docker import "$top/rootfs.tar" base >/dev/null
  same images "$(docker images --format '{{.Repository}}')" base
}

union() {
  same driver "$(docker info -f '{{.Driver}}')" fuse-overlayfs
  same 'file system, a file, an owner' "$(run base sh -c 'stat -f -c %t /; cat /etc/word; stat -c %u:%g /etc/owned')" \
    $'65735546\nfrom the image\n7:8'
}

build() {
  local context=$top/context
  mkdir -p "$context/directory"
  echo copied >"$context/file"
  echo below >"$context/directory/below"
  cat >"$context/Dockerfile" <<'END'
FROM base AS made
RUN echo one >/etc/one && rm /etc/gone && rm -r /full
RUN mkdir /full && echo again >/full/again && mv /etc/one /etc/two
COPY file /etc/copied
COPY directory /again/
RUN rm /again/old && chown 9:9 /data/owner && ln /data/one /data/three && echo more >>/data/one
FROM made
RUN cat /etc/two /etc/copied >>/etc/word
USER 1
CMD ["cat", "/full/again", "/etc/word", "/again/below"]
END
  docker build -q --network none -t built "$context" >/dev/null
  same 'the result' "$(run built)" $'again\nfrom the image\none\ncopied\nbelow'
  same 'removed files' "$(run built sh -c 'ls /full /again /etc/gone 2>&1')" \
    $'ls: /etc/gone: No such file or directory\n/again:\nbelow\n\n/full:\nagain'
  same 'owners, links' "$(run built sh -c 'id -u; stat -c %u:%g /data/owner; stat -c %h /data/two')" $'1\n9:9\n3'
  same 'again' "$(docker build --network none -t built "$context" 2>&1 | grep -c 'Using cache')" 8
  # Each build step adds a layer; a container adds two more.
  docker run -d --network none --name layers built sleep 1000 >/dev/null
  same 'number of mounts' "$(unions | wc -l)" 1
  docker rm -f layers >/dev/null
  same 'mounts left' "$(unions)" ''
}

modify() {
  docker run --network none --name work base sh -ec "$modification"
}

changes() {
  same diff "$(docker diff work | sort)" "$(sort <<<"$differences")"
}

commit() {
  docker commit work changed >/dev/null
  run changed sh -c "$listing" >"$top/committed"
  modified
}

several() {
  local i pids=()
  for ((i = 0; i < containers; i++)); do
    docker run -d --network none --name "c$i" changed sh -ec "
      echo $i >/data/i; cp -r /bin /data/bin; rm -f /etc/word; touch /data/ready; exec sleep 1000" >/dev/null &
    pids+=($!)
  done
  for i in "${pids[@]}"; do wait "$i"; done
  same 'mounts' "$(unions | wc -l)" "$containers"
  for ((i = 0; i < containers; i++)); do
    docker exec "c$i" sh -ec 'until [ -e /data/ready ]; do sleep 0.1; done'
    same "container $i" "$(docker exec "c$i" sh -c 'cat /data/i; ls /data/bin | wc -l; cat /etc/word 2>&1')" \
      "$i"$'\n'"$(tar -tf "$top/rootfs.tar" | grep -c '^\./bin/.')"$'\ncat: can\'t open \'/etc/word\': No such file or directory'
  done
  same 'differences' "$(docker diff c7 | grep -v /data/bin | sort)" $'A /data/i\nA /data/ready\nC /data\nC /etc\nD /etc/word'
  [ -n "${MOUNT_PROGRAM:-}" ] || same servers "$(for i in $(servers); do tr '\0' ' ' <"/proc/$i/cmdline" | grep -o '^[a-z]* [a-z]*'; done)" 'tsoverlay server'
}

# CPU time of the servers while the containers are idle: at most 0.05 s for each container.
idle() {
  local before after
  before=$(ticks)
  sleep "$seconds"
  after=$(ticks)
  echo "$((after - before)) ticks of 1/$(getconf CLK_TCK) s in $seconds s, $containers containers"
  [ $(((after - before) * 20)) -le $((containers * $(getconf CLK_TCK))) ]
}

# CPU time of all threads of all servers, in clock ticks.
ticks() {
  local pid sum=0 stat
  for pid in $(servers); do
    read -r stat <"/proc/$pid/stat"
    # shellcheck disable=SC2086
    set -- ${stat##*') '}
    sum=$((sum + ${12} + ${13}))
  done
  echo "$sum"
}

restart() {
  docker exec c0 sh -c 'echo kept >/data/kept'
  docker stop -t 0 c0 >/dev/null
  same 'mounts of a stopped container' "$(unions | wc -l)" $((containers - 1))
  docker start c0 >/dev/null
  same 'after a restart' "$(docker exec c0 cat /data/kept)" kept
  local i all=()
  for ((i = 0; i < containers; i++)); do all+=("c$i"); done
  docker rm -f "${all[@]}" >/dev/null # still running
  same 'mounts when they are removed' "$(unions)" ''
}

save() {
  docker save -o "$top/save.tar" changed
  docker rm work >/dev/null
  docker rmi -f changed >/dev/null
  docker load -q -i "$top/save.tar" >/dev/null
  same 'loaded again' "$(run changed sh -c "$listing")" "$(cat "$top/committed")"
}

export_() {
  docker create --name exported changed true >/dev/null
  docker export -o "$top/export.tar" exported
  docker rm exported >/dev/null
  same 'removed files' "$(tar -tf "$top/export.tar" | grep -cE 'etc/(gone|before)$|^full/|again/old$|\.wh\.' || true)" 0
  docker import "$top/export.tar" flat >/dev/null
  run flat sh -c "$listing" >"$top/flat"
  same 'imported again' "$(cat "$top/flat")" "$(cat "$top/committed")"
  docker rmi flat >/dev/null
}

copy() {
  docker create --network none --name copies base sleep 1000 >/dev/null
  mkdir -p "$top/in/directory"
  echo in >"$top/in/directory/file"
  docker cp "$top/in/directory" copies:/data/
  docker cp copies:/etc/word "$top/in/word"
  same 'out of a container' "$(cat "$top/in/word")" 'from the image'
  docker start copies >/dev/null
  same 'into a container' "$(docker exec copies cat /data/directory/file)" in
  docker exec copies sh -c 'rm /etc/word; echo out >/data/out'
  docker cp copies:/data/out - | tar -xO | cmp - <(echo out)
  if docker cp copies:/etc/word "$top/in/none" 2>/dev/null; then false; fi
  docker rm -f copies >/dev/null
}

readonly_() {
  same 'a file' "$(run --read-only base sh -c 'cat /etc/word; touch /data/x 2>&1')" \
    $'from the image\ntouch: /data/x: Read-only file system'
}

# The next dockerd still has the stopped containers and images, and no union stays mounted in
# between.
daemon() {
  docker run --network none --name stays base sh -c 'echo stays >/data/stays'
  stop_daemon
  same 'mounts' "$(unions)" ''
  start_daemon fuse-overlayfs
  docker start -a stays
  docker cp stays:/data/stays - | tar -xO | cmp - <(echo stays)
  docker rm stays >/dev/null
}

clean() {
  local all
  all=$(docker ps -aq)
  same containers "$all" ''
  docker image prune -af >/dev/null
  same images "$(docker images -aq)" ''
  same layers "$(cd "$top/root/fuse-overlayfs" && find . -mindepth 1 | sort)" ./l
  same mounts "$(unions)" ''
  stop_daemon
  if [ -z "${MOUNT_PROGRAM:-}" ]; then
    # Without the stop it ends only after its linger time.
    same status "$("$program" server status | sed 's/process [0-9]*/process N/')" 'process N, 0 mounts, ends without mounts'
    "$program" server stop
    same 'files of the server' "$(ls -A "/run/$TSOVERLAY_SERVER")" ''
  fi
  gone
}

# Waits until all processes of the namespace, except this script's own, have ended by themselves.
gone() {
  local i left
  for i in {1..300}; do
    left=$(others)
    [ -n "$left" ] || return 0
    sleep 0.1
  done
  same processes "$left" ''
}

others() {
  local directory line
  for directory in /proc/[0-9]*; do
    line=$(tr '\0' ' ' 2>/dev/null <"$directory/cmdline")
    # The command line is empty for a process that was just forked, or is a zombie.
    case $line in '' | *"$script --namespace "*) ;; *) echo "$line" ;; esac
  done
}

unions() {
  grep -F ' - fuse' /proc/self/mountinfo | awk -v a="$top/" 'index($5, a) == 1 { print $5 }'
}

# The process ids of the unions' servers.
servers() {
  local directory
  for directory in /proc/[0-9]*; do
    case $(tr '\0' ' ' 2>/dev/null <"$directory/cmdline") in
      'tsoverlay server'* | 'tsoverlay mount'* | *"$top/bin/fuse-overlayfs"* | fuse-overlayfs*) echo "${directory#/proc/}" ;;
    esac
  done
}

# ---- Setup.

containers=20
seconds=5
program=$repository/dist/cli/tsoverlay

# start_daemon DRIVER: starts dockerd and returns when it answers.
start_daemon() {
  # `container` stops dockerd from looking for AppArmor's program.
  container=docker dockerd --data-root "$top/root" --exec-root /run/docker --host "$DOCKER_HOST" --pidfile /run/docker.pid \
    --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --bridge=none --cgroup-parent "$cgroup" \
    --storage-driver "$1" </dev/null >>"$top/dockerd.log" 2>&1 &
  daemon=$!
  local i
  for i in {1..600}; do
    docker version >/dev/null 2>&1 && return
    kill -0 $daemon 2>/dev/null || break
    sleep 0.1
  done
  return 1
}

# dockerd ends its child, containerd.
stop_daemon() {
  local daemon containerd i
  daemon=$(cat /run/docker.pid)
  containerd=$(cat /run/docker/containerd/containerd.pid)
  kill "$daemon"
  for i in {1..600}; do
    kill -0 "$daemon" 2>/dev/null || kill -0 "$containerd" 2>/dev/null || return 0
    sleep 0.1
  done
  echo "dockerd, process $daemon, or containerd, process $containerd, does not end"
  return 1
}

# Checks that containers can be run here, without a mount program. Otherwise the script is skipped.
find_runtime() {
  if ! start_daemon vfs; then
    skip "docker: dockerd does not start here: $(grep -av 'level=info' "$top/dockerd.log" | tail -1)"
  fi
  docker import "$top/rootfs.tar" probe >/dev/null 2>&1
  local said
  if ! said=$(run probe true 2>&1); then skip "docker: no container runs here: $(grep -a 'rror' <<<"$said" | tail -1)"; fi
  stop_daemon
  rm -rf --one-file-system "$top/root"
}

steps() {
  rootfs
  find_runtime
  start_daemon fuse-overlayfs || {
    tail -20 "$top/dockerd.log"
    exit 2
  }
  step 'docker import' import
  step 'docker run: the root is a union' union
  step 'docker build, two stages, and its cache' build
  step 'changes in a container' modify
  step 'docker diff' changes
  step 'docker commit, and running the new image' commit
  step "$containers containers at once, exec, diff" several
  step "$containers idle containers" idle
  step 'docker stop, start, rm -f' restart
  step 'docker save, rmi and load' save
  step 'docker export, and importing the archive' export_
  step 'docker cp' copy
  step 'a read-only container' readonly_
  step 'another dockerd' daemon
  step 'nothing is left' clean
}

# The second half of this script, in namespaces of its own; $2 is the directory.
if [ "${1:-}" = --namespace ]; then
  top=$2
  # Mounts of other test runs would stay alive in the namespace.
  findmnt -rn -o TARGET | grep /tsoverlay- | tac | while read -r point; do umount -l "$(printf '%b' "$point")" 2>/dev/null; done
  mount -t tmpfs -o mode=755 tmpfs /run || exit 2
  mkdir -p "$top"/{bin,home,tmp} || exit 2
  ln -s "${MOUNT_PROGRAM:-$program}" "$top/bin/fuse-overlayfs" || exit 2
  export PATH=$top/bin:$PATH HOME=$top/home TMPDIR=$top/tmp TSOVERLAY_SERVER=unions
  export DOCKER_HOST=unix:///run/docker.sock DOCKER_BUILDKIT=0 DOCKER_CONFIG=$top/home/docker
  unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
  cgroup=${top##*/}
  cd "$top" || exit 2
  trap 'exit 130' INT TERM HUP # the first process of a namespace ignores signals without a handler
  steps
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
  exit
fi

[ "$(id -u)" = 0 ] || skip 'needs root'
[ -c /dev/fuse ] || skip 'needs /dev/fuse'
for name in dockerd docker containerd runc busybox node unshare findmnt; do
  command -v $name >/dev/null || skip "needs $name"
done
[ -n "${MOUNT_PROGRAM:-}" ] || [ -x "$program" ] || skip 'needs the built program: npm run build'

scratch=$(mktemp -d "${TMPDIR:-/tmp}/tsoverlay-docker-XXXXXX") || exit 2
scratch=$(realpath "$scratch")
# shellcheck disable=SC2317 # by the trap
tidy() {
  local directory
  for directory in /sys/fs/cgroup/"${scratch##*/}" /sys/fs/cgroup/*/"${scratch##*/}"; do
    [ ! -d "$directory" ] || find "$directory" -depth -type d -exec rmdir {} \;
  done
  rm -rf --one-file-system "$scratch"
}
trap tidy EXIT
trap 'exit 130' INT TERM HUP
# All processes of the process namespace end with it.
unshare --mount --propagation private --pid --net --fork --kill-child --mount-proc bash "$script" --namespace "$scratch"

#!/bin/sh
# The program `tsoverlay`, and `fuse-overlayfs` and `mount.tsoverlay` by other names. A mount in the background is first asked of the
# resident server of this user, where there is one: that starts no Node. Else this shell starts a server and waits for it; as Node
# is slow to start, it takes the place of a first process. It knows the two commonest command lines of a mount in the
# background; everything else, and whatever it is not sure of, goes to main.cjs.

build=@@@BUILD-HASH@@@

# One program is started for all that is to be read. Where that fails (busybox reads one link at a time; there is no /proc), no server is
# asked.
# Without a locale, whose files take longer to load than all the rest.
if links=$(LC_ALL=C readlink -f -- /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/net /proc/self/ns/user "$0" 2>/dev/null); then
  key=$build
  for kind in mnt pid net user; do
    link=${links%%'
'*}
    links=${links#*'
'}
    number=${link##*'['}
    number=${number%']'}
    key=$key-$number
  done
  self=$links
else
  key=
  self=$(readlink -f -- "$0") || exit 2
fi
here=${self%/*}
export TSOVERLAY_CALLED_AS="${0##*/}"

# Whether the resident server may be asked. It reads the command line itself, and refuses what is not for it.
may_ask() {
  case $TSOVERLAY_CALLED_AS:${1-} in
    mount.* | fuse-overlayfs:* | *:mount) options=1 ;;
    *:umount | *:unmount | *:server | *:ls | *:stats | *:which) return 1 ;;
    *) options= ;;
  esac
  for arg; do
    case $arg in
      *remount* | -f | -h | -d | --help | --foreground | --own-server) return 1 ;;
      -o*) options=1 ;;
    esac
  done
  [ -n "$options" ]
}

# The folder of the resident server: see src/server/runtime-folder.ts. Everything in it is this user's own, and so is what leads there.
find_server() {
  name=${TSOVERLAY_SERVER-tsoverlay}
  case $name in '' | .* | */*) return 1 ;; esac
  # The number of the initial user namespace (kernel: PROC_USER_INIT_INO); /proc/sys is root's there.
  if [ "$number" = 4026531837 ] && [ -O /proc/sys ]; then
    base=/run
  else
    base=${XDG_RUNTIME_DIR-}
    case $base in /*) ;; *) return 1 ;; esac
    [ -O "$base" ] && [ ! -L "$base" ] || return 1
  fi
  folder=$base/$name/$key
  answer=$folder/answer.$$
  [ -O "$base/$name" ] && [ ! -L "$base/$name" ] && [ -O "$folder" ] && [ ! -L "$folder" ] &&
    [ -p "$folder/control" ] && [ ! -e "$answer" ] &&
    { read -r server && read -r start; } <"$folder/pid" || return 1
  is_running || {
    export TSOVERLAY_UNANSWERED="$server" # the next one takes its place
    return 1
  }
}

# Whether the server's process is there, is no other one by now that has its number, and is not stopped.
is_running() {
  { read -r stat <"/proc/$server/stat"; } 2>/dev/null || return 1
  set -- ${stat##*') '}
  case $1 in T | t | Z | X | x) return 1 ;; esac
  [ "${20}" = "$start" ]
}

# Ends what was started to wait, and does not wait for that. One that was waited for is no child any more: another process may have its
# number.
rest() {
  for child in $timer $writer; do
    read -r stat <"/proc/$child/stat" || continue
    set -- ${stat##*') '}
    [ "$2" = $$ ] && kill "$child"
  done
} 2>/dev/null

# The server has answered: exits, or returns where this shell is to start a server.
take_answer() {
  {
    read -r told
    [ "$told" != own ] || return 0
    trap '' PIPE # who reads no lines has the mount all the same
    while IFS= read -r line; do printf '%s\n' "$line" >&2; done
  } <"$answer"
  rest
  exit "$told"
}

# Takes the request back: a server that comes too late finds the file, and unmounts again. It may have been first.
withdraw() {
  set -C
  { true >"$answer"; } 2>/dev/null || [ ! -e "$answer" ] || take_answer
  set +C
}

# Asks the server, with its FIFO as descriptor 3, which it looks for. It says by a signal that there is an answer, or, without one, that it
# has begun: by one that is ignored where nobody waits for it, since this process may have become Node by then. Whoever opens or writes
# a FIFO may have to wait for ever: `<>` never does, and another process writes, which has it open for nothing else, so that it ends
# with the server.
ask() {
  [ -p /proc/self/fd/3 ] || return 0 # the server has taken it away, and `<>` has made a file
  begun=
  left=15
  writer=
  timer=
  # The signal may come before this shell waits for the timer.
  trap '[ ! -e "$answer" ] || { take_answer; rest; }; begun=1' URG
  trap 'withdraw; rest; exit 8' INT TERM HUP
  {
    exec 4>/proc/self/fd/3 >&- 3>&-
    printf '\n%s\n' $$ >&4 # apart from what others may have written
  } 2>/dev/null &
  writer=$!
  sleep 2 >&- 2>&- 3>&- &
  timer=$!
  while :; do
    [ -e "$answer" ] || wait $timer
    status=$?
    if [ -e "$answer" ]; then
      take_answer
      break
    fi
    [ $status -le 128 ] || continue # the signal
    left=$((left - 1))
    # One that has not begun may lack a processor. But where the FIFO is full, so that the writer still has it open, it does not read.
    if [ $left = 0 ] || { [ -z "$begun" ] && { [ $left = 10 ] || [ -e /proc/$writer/fd/4 ]; }; } || ! is_running; then
      withdraw
      export TSOVERLAY_UNANSWERED="$server"
      break
    fi
    sleep 2 >&- 2>&- 3>&- &
    timer=$!
  done
  trap - URG INT TERM HUP
  rest
}

[ -z "$key" ] || ! may_ask "$@" || ! find_server 2>/dev/null || ask 3<>"$folder/control"

in_background() {
  case $TSOVERLAY_CALLED_AS:${1-} in
    mount.*) return 1 ;;
    fuse-overlayfs:-o* | *:mount | *:-o*) ;;
    *) return 1 ;;
  esac
  for arg; do
    case $arg in
      *remount*) return 1 ;; # which starts no server
      -o*) ;;
      -*) return 1 ;;
    esac
  done
}

# Node needs a process and six threads to start. Where it gets the process and not five of the threads, it waits for
# ever, before it runs any of the program (src/node_platform.cc:WorkerThreadsTaskRunner). So as many processes are tried
# at a time: ulimit -u and pids.max count both alike. With less memory (KiB) or descriptors than here it waits or dies.
can_start() {
  (
    set -- $(ulimit -v; ulimit -Hn)
    [ "${1:-unlimited}" = unlimited ] || [ "$1" -ge 400000 ] || exit 3
    [ "${2:-unlimited}" = unlimited ] || [ "$2" -ge 24 ] || exit 4
    : & : & : & : & : & : & wait
  ) 2>/dev/null
  case $? in
    0) return ;;
    3) why="the limit of memory is too low (ulimit -v)" ;;
    4) why="the limit of descriptors is too low (ulimit -n)" ;;
    *) why="no process or thread can be created: the limit is reached (ulimit -u, or pids.max of the cgroup)" ;;
  esac
  echo "tsoverlay: $why" >&2
  exit 2
}

in_background "$@" || {
  can_start
  exec node "$here/main.cjs" "$@"
}

# What daemon.ts does, which has the reasons.
unset NODE_EXTRA_CA_CERTS
export TSOVERLAY_LAUNCHER="$$"
server=
trap 'exit 0' USR2
trap 'trap "" USR2; [ -z "$server" ] || { kill "$server"; wait "$server"; } 2>/dev/null; exit 8' INT TERM HUP
can_start
node "$here/server.cjs" "$@" </dev/null >/dev/null &
server=$!
wait "$server" 2>/dev/null # where some shells would name the signal
status=$?
[ "$status" -ne 0 ] || exit 2
[ "$status" -gt 128 ] || exit "$status"
why=
case $status in 133 | 134) why=": it can't have the threads or the memory that it needs (ulimit -u, ulimit -v, or pids.max of the cgroup)" ;; esac
echo "tsoverlay: the server was ended by signal $((status - 128)) before the mount was live$why" >&2
exit 2

#!/bin/sh
# The launcher script: the program `tsoverlay`, and under other names `fuse-overlayfs` and
# `mount.tsoverlay`. For a background mount it first asks the resident server of this user, if one
# runs; that starts no Node. Otherwise this shell starts a server and waits for it, in place of a
# first Node process, because Node starts slowly. It recognizes only the two commonest command lines
# of a background mount. Everything else, and every uncertain case, goes to main.cjs.

build=@@@BUILD-HASH@@@

# One readlink reads all links. If it fails no server is asked: the readlink of busybox takes only
# one link, or /proc is not mounted. LC_ALL=C saves loading the locale's files, which takes longer
# than the rest.
cgroups=
if links=$(LC_ALL=C readlink -f -- /proc/self/ns/cgroup /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/net /proc/self/ns/time /proc/self/ns/user "$0" 2>/dev/null); then
  key=$build
  for kind in cgroup mnt pid net time user; do
    link=${links%%'
'*}
    links=${links#*'
'}
    number=${link##*'['}
    number=${number%']'}
    # Linux before 5.6 has no time namespaces; readlink then prints the path itself.
    case $kind:$link in
      cgroup:*) cgroups=$number ;;
      *'['*) key=$key-$number ;;
    esac
  done
  self=$links
else
  key=
  self=$(readlink -f -- "$0") || exit 2
fi
script_directory=${self%/*}
export TSOVERLAY_CALLED_AS="${0##*/}"
unset TSOVERLAY_STARTING TSOVERLAY_UNANSWERED

# Whether the resident server may be asked. The server parses the command line itself and refuses
# requests that it does not serve.
may_ask_server() {
  case $TSOVERLAY_CALLED_AS:${1-} in
    mount.* | fuse-overlayfs:* | *:mount) options=1 ;;
    *:umount | *:unmount | *:server | *:ls | *:stats | *:which | *:top) return 1 ;;
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

# Finds the directory of the resident server by the rules of src/resident/runtime-directory.ts. This
# user must own the directory and all directories that lead to it. Sets the variables that the other
# functions use.
find_server() {
  runtime_directory=
  name=${TSOVERLAY_SERVER-tsoverlay}
  case $name in '' | .* | */*) return 1 ;; esac
  # The inode number of the initial user namespace (kernel: PROC_USER_INIT_INO). In that namespace
  # only root owns /proc/sys.
  if [ "$number" = 4026531837 ] && [ -O /proc/sys ]; then
    runtime_base=/run
  else
    runtime_base=${XDG_RUNTIME_DIR-}
    case $runtime_base in /*) ;; *) return 1 ;; esac
    [ -O "$runtime_base" ] && [ ! -L "$runtime_base" ] || return 1
  fi
  runtime_directory=$runtime_base/$name
  server_directory=$runtime_directory/$key
  answer=$server_directory/answer.$$
  [ -O "$runtime_directory" ] && [ ! -L "$runtime_directory" ] && [ -O "$server_directory" ] && [ ! -L "$server_directory" ] && [ ! -e "$answer" ] &&
    { read -r server && read -r server_start && read -r kind && read -r holder && read -r holder_start && read -r pipe; } <"$server_directory/pid" || return 1
  # The kernel hides the pipe from a process without ptrace access to the server.
  [ -p "$pipe" ] && return
  server_is_alive || mark_unanswered
  return 1
}

# Lets the next server replace this one.
mark_unanswered() {
  export TSOVERLAY_UNANSWERED="$server"
}

# Whether the server's process lives, and the process that holds the pipe.
server_is_alive() {
  process_is_alive "$server" "$server_start" && { [ "$holder" = "$server" ] || process_is_alive "$holder" "$holder_start"; }
}

# Whether the process with a process id and a start time lives and is not stopped. A process that
# reuses the id has another start time.
process_is_alive() {
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  start_time=$2
  set -- ${stat##*') '}
  case $1 in T | t | Z | X | x) return 1 ;; esac
  [ "${20}" = "$start_time" ]
}

# Kills the background helpers without waiting for them. A helper that has been waited for is no
# longer a child: another process may have its process id.
kill_helpers() {
  for child in $timer $writer; do
    read -r stat <"/proc/$child/stat" || continue
    set -- ${stat##*') '}
    [ "$2" = $$ ] && kill "$child"
  done
} 2>/dev/null

# Reads the server's answer. Exits, or returns if this shell has to start a server.
read_answer() {
  {
    read -r result
    [ "$result" != own ] || return 0
    trap '' PIPE # the mount exists even if standard error has no reader
    while IFS= read -r line; do printf '%s\n' "$line" >&2; done
  } <"$answer"
  kill_helpers
  exit "$result"
}

# Takes the request back by creating the answer file: a late server finds the file and unmounts. If
# the server was first, its answer is read.
withdraw_request() {
  set -C
  { true >"$answer"; } 2>/dev/null || [ ! -e "$answer" ] || read_answer
  set +C
}

# Sends the request to the server, whose pipe is open as descriptor 3. The server checks that this
# descriptor is open. It sends SIGURG when the answer exists, or, without an answer, when it has
# taken the request. The default action of SIGURG is to ignore it, because this process may become
# Node before the signal arrives. Opening or writing a pipe may block forever. Opening with `<>`
# never blocks. Another process writes, and holds the pipe open only for that, so it ends when the
# server ends.
send_request() {
  # This also checks that descriptor 3 is the server's pipe, and not the pipe of a process that
  # reused the process id.
  server_is_alive || {
    mark_unanswered
    return
  }
  request_taken=
  tick=2
  ticks=1 # ticks in two seconds
  ticks_passed=0
  writer=
  timer=
  # A shell can't trap a signal that was ignored when it started, and a blocked signal is not
  # delivered. If SIGURG does not work the loop polls.
  signal_works=
  trap 'signal_works=1' URG
  kill -s URG $$
  # The signal may arrive before this shell waits for the timer.
  trap '[ ! -e "$answer" ] || { read_answer; kill_helpers; }; request_taken=1' URG
  trap 'withdraw_request; kill_helpers; exit 8' INT TERM HUP
  {
    exec 4>/proc/self/fd/3 >&- 3>&-
    printf '\n%s\n' $$ >&4 # an empty line, in case another process wrote an incomplete line
  } 2>/dev/null &
  writer=$!
  [ -n "$signal_works" ] || {
    tick=0.02
    ticks=100
    sleep $tick >&- 2>&- 3>&- || { # this sleep takes only whole seconds
      tick=1
      ticks=2
    }
  }
  sleep $tick >&- 2>&- 3>&- &
  timer=$!
  while :; do
    [ -e "$answer" ] || wait $timer
    status=$?
    if [ -e "$answer" ]; then
      read_answer
      break
    fi
    [ $status -le 128 ] || continue # interrupted by the signal
    ticks_passed=$((ticks_passed + 1))
    # A server that has not taken the request may only lack CPU time. But if the writer still has
    # the pipe open, the pipe is full, so the server does not read it.
    if [ $((ticks_passed % ticks)) = 0 ] && { [ $ticks_passed -ge $((15 * ticks)) ] || ! server_is_alive ||
      { [ -z "$request_taken" ] && { [ $ticks_passed -ge $((5 * ticks)) ] || [ -e /proc/$writer/fd/4 ]; }; }; }; then
      withdraw_request
      mark_unanswered
      break
    fi
    sleep $tick >&- 2>&- 3>&- &
    timer=$!
  done
  trap - URG INT TERM HUP
  kill_helpers
}

is_background_mount() {
  case $TSOVERLAY_CALLED_AS:${1-} in
    mount.*) return 1 ;;
    fuse-overlayfs:-o* | *:mount | *:-o*) ;;
    *) return 1 ;;
  esac
  for arg; do
    case $arg in
      *remount*) return 1 ;; # a remount starts no server
      -o*) ;;
      -*) return 1 ;;
    esac
  done
}

# Several clients that find no server would each start one. The first client locks a file, and its
# server holds the lock until it accepts requests. The other clients wait for the lock for a limited
# time, and only once. Without flock(1), or if flock(1) has no timeout, no client waits.
lock_or_find_server() {
  [ -n "$runtime_directory" ] || return 1
  [ -d "$runtime_directory" ] || mkdir -m 700 "$runtime_directory" || return 1
  [ -O "$runtime_directory" ] && [ ! -L "$runtime_directory" ] && command exec 9>>"$runtime_directory/.starting-$key" || return 1
  flock -n 9
  case $? in
    0)
      find_server && {
        exec 9>&-
        return
      }
      export TSOVERLAY_STARTING=9
      return 1
      ;;
    1) flock -s -w 2 9 && server_ready=1 || server_ready= ;;
    *) server_ready= ;;
  esac
  exec 9>&-
  [ -n "$server_ready" ] && find_server
}

if [ -n "$key" ] && may_ask_server "$@"; then
  if find_server 2>/dev/null || { is_background_mount "$@" && lock_or_find_server 2>/dev/null; }; then
    send_request 3<>"$pipe"
  fi
fi

# Node starts with one process and six threads. If it gets the process but not five of the threads,
# it waits forever before it runs any of the program (src/node_platform.cc:WorkerThreadsTaskRunner).
# So this shell creates that many processes at the same time, unless the limits are known to leave
# room: ulimit -u and pids.max count processes and threads alike. With less memory (in bytes) or
# fewer descriptors than checked here, Node hangs or dies.
can_start() {
  problem=
  processes=
  {
    while read -r line; do
      case $line in
        'Max processes '*) set -- $line && processes=$3 ;;
        'Max open files '*)
          set -- $line
          [ "$5" = unlimited ] || [ "$5" -ge 24 ] || problem="the limit of descriptors is too low (ulimit -n)"
          ;;
        'Max address space '*)
          set -- $line
          [ "$4" = unlimited ] || [ "$4" -ge 409600000 ] || problem="the limit of memory is too low (ulimit -v)"
          break # a shell reads byte by byte, so the rest is not read
          ;;
      esac
    done </proc/self/limits
    [ -n "$problem" ] || limits_leave_room || (: & : & : & : & : & : & wait) ||
      problem="no process or thread can be created: the limit is reached (ulimit -u, or pids.max of the cgroup)"
  } 2>/dev/null
  [ -n "$problem" ] || return 0
  echo "tsoverlay: $problem" >&2
  exit 2
}

# Whether far more processes are possible than can_start tries. An unknown limit counts as no.
limits_leave_room() {
  [ "$processes" = unlimited ] || {
    # The number of threads of all users.
    read -r line </proc/loadavg && set -- $line && threads=${4#*/} && [ "$processes" -gt $((threads + 64)) ] || return 1
  }
  # Any cgroup namespace but the first (kernel: PROC_CGROUP_INIT_INO) hides parent cgroups and their
  # limits.
  [ "$cgroups" = 4026531835 ] || return 1
  kind=
  while IFS=: read -r line kind group; do
    case $line:$kind in
      *pids*) kind=pids && break ;;
      0:) break ;;
    esac
  done </proc/self/cgroup || return 1
  hierarchy=/sys/fs/cgroup${kind:+/$kind}
  cgroup_directory=$hierarchy${group%/}
  while :; do
    [ -d "$cgroup_directory" ] || return 1
    [ ! -e "$cgroup_directory/pids.max" ] || {
      read -r max <"$cgroup_directory/pids.max" && read -r current <"$cgroup_directory/pids.current" || return 1
      [ "$max" = max ] || [ "$max" -gt $((current + 64)) ] || return 1
    }
    [ "$cgroup_directory" != "$hierarchy" ] || return 0
    cgroup_directory=${cgroup_directory%/*}
  done
}

is_background_mount "$@" || {
  can_start
  exec node "$script_directory/main.cjs" "$@"
}

# This does the same as daemon.ts, which explains the reasons.
unset NODE_EXTRA_CA_CERTS
export TSOVERLAY_LAUNCHER="$$"
server=
trap 'exit 0' USR2
trap 'trap "" USR2; [ -z "$server" ] || { kill "$server"; wait "$server"; } 2>/dev/null; exit 8' INT TERM HUP
can_start
node "$script_directory/server.cjs" "$@" </dev/null >/dev/null &
server=$!
[ -z "${TSOVERLAY_STARTING-}" ] || exec 9>&-
wait "$server" 2>/dev/null # some shells print the signal's name
status=$?
[ "$status" -ne 0 ] || exit 2
[ "$status" -gt 128 ] || exit "$status"
problem=
case $status in 133 | 134) problem=": it can't have the threads or the memory that it needs (ulimit -u, ulimit -v, or pids.max of the cgroup)" ;; esac
echo "tsoverlay: the server was ended by signal $((status - 128)) before the mount was live$problem" >&2
exit 2

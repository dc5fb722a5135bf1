#!/bin/sh
# The program `tsoverlay`, and `fuse-overlayfs` and `mount.tsoverlay` by other names. A mount in the
# background is first asked of the resident server of this user, where there is one: that starts no
# Node. Else this shell starts a server and waits for it; as Node is slow to start, it takes the
# place of a first process. It knows the two commonest command lines of a mount in the background;
# everything else, and whatever it is not sure of, goes to main.cjs.

build=@@@BUILD-HASH@@@

# One program is started for all that is to be read. Where that fails (busybox reads one link at a
# time; there is no /proc), no server is asked. Without a locale, whose files take longer to load
# than all the rest.
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
    # Linux before 5.6 has no namespaces for time, and the path itself is read.
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
here=${self%/*}
export TSOVERLAY_CALLED_AS="${0##*/}"
unset TSOVERLAY_STARTING TSOVERLAY_UNANSWERED

# Whether the resident server may be asked. It reads the command line itself, and refuses what is
# not for it.
may_ask() {
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

# The directory of the resident server: see src/resident/runtime-directory.ts. Everything in it is
# this user's own, and so is what leads there.
find_server() {
  top=
  name=${TSOVERLAY_SERVER-tsoverlay}
  case $name in '' | .* | */*) return 1 ;; esac
  # The number of the initial user namespace (kernel: PROC_USER_INIT_INO); /proc/sys is root's
  # there.
  if [ "$number" = 4026531837 ] && [ -O /proc/sys ]; then
    base=/run
  else
    base=${XDG_RUNTIME_DIR-}
    case $base in /*) ;; *) return 1 ;; esac
    [ -O "$base" ] && [ ! -L "$base" ] || return 1
  fi
  top=$base/$name
  directory=$top/$key
  answer=$directory/answer.$$
  [ -O "$top" ] && [ ! -L "$top" ] && [ -O "$directory" ] && [ ! -L "$directory" ] && [ ! -e "$answer" ] &&
    { read -r server && read -r start && read -r kind && read -r holder && read -r held && read -r pipe; } <"$directory/pid" || return 1
  # The kernel says no to whom it would not let look into the server.
  [ -p "$pipe" ] && return
  is_running || pass_over
  return 1
}

# Lets the next server take the place of this one.
pass_over() {
  export TSOVERLAY_UNANSWERED="$server"
}

# Whether the server's process is there, and the one that holds the pipe for it.
is_running() {
  runs "$server" "$start" && { [ "$holder" = "$server" ] || runs "$holder" "$held"; }
}

# Whether a process is there, is no other one by now that has its number, and is not stopped.
runs() {
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  began=$2
  set -- ${stat##*') '}
  case $1 in T | t | Z | X | x) return 1 ;; esac
  [ "${20}" = "$began" ]
}

# Ends what was started to wait, and does not wait for that. One that was waited for is no child any
# more: another process may have its number.
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

# Takes the request back: a server that comes too late finds the file, and unmounts again. It may
# have been first.
withdraw() {
  set -C
  { true >"$answer"; } 2>/dev/null || [ ! -e "$answer" ] || take_answer
  set +C
}

# Asks the server, with its pipe as descriptor 3, which it looks for. It says by a signal that there
# is an answer, or, without one, that it has begun: by one that is ignored where nobody waits for
# it, since this process may have become Node by then. Whoever opens or writes a pipe may have to
# wait for ever: `<>` never does, and another process writes, which has it open for nothing else, so
# that it ends with the server.
ask() {
  # Also whether it was the server's pipe that was opened, and no other process has its number.
  is_running || {
    pass_over
    return
  }
  begun=
  tick=2
  ticks=1 # in two seconds
  passed=0
  writer=
  timer=
  # A signal that was ignored when this shell began can't be caught, and one that is blocked does
  # not come.
  heard=
  trap 'heard=1' URG
  kill -s URG $$
  # The signal may come before this shell waits for the timer.
  trap '[ ! -e "$answer" ] || { take_answer; rest; }; begun=1' URG
  trap 'withdraw; rest; exit 8' INT TERM HUP
  {
    exec 4>/proc/self/fd/3 >&- 3>&-
    printf '\n%s\n' $$ >&4 # apart from what others may have written
  } 2>/dev/null &
  writer=$!
  [ -n "$heard" ] || {
    tick=0.02
    ticks=100
    sleep $tick >&- 2>&- 3>&- || { # it takes whole seconds only
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
      take_answer
      break
    fi
    [ $status -le 128 ] || continue # the signal
    passed=$((passed + 1))
    # One that has not begun may lack a processor. But where the pipe is full, so that the writer
    # still has it open, it does not read.
    if [ $((passed % ticks)) = 0 ] && { [ $passed -ge $((15 * ticks)) ] || ! is_running ||
      { [ -z "$begun" ] && { [ $passed -ge $((5 * ticks)) ] || [ -e /proc/$writer/fd/4 ]; }; }; }; then
      withdraw
      pass_over
      break
    fi
    sleep $tick >&- 2>&- 3>&- &
    timer=$!
  done
  trap - URG INT TERM HUP
  rest
}

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

# Several clients that find no server would start one each. The first one locks a file, and its
# server keeps the lock until it can be asked; the others wait for that, but not for long, and once.
# Where there is no flock(1), or one that can't wait, nobody waits.
take_turn() {
  [ -n "$top" ] || return 1
  [ -d "$top" ] || mkdir -m 700 "$top" || return 1
  [ -O "$top" ] && [ ! -L "$top" ] && command exec 9>>"$top/.starting-$key" || return 1
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
    1) flock -s -w 2 9 && found=1 || found= ;;
    *) found= ;;
  esac
  exec 9>&-
  [ -n "$found" ] && find_server
}

if [ -n "$key" ] && may_ask "$@"; then
  if find_server 2>/dev/null || { in_background "$@" && take_turn 2>/dev/null; }; then
    ask 3<>"$pipe"
  fi
fi

# Node needs a process and six threads to start. Where it gets the process and not five of the
# threads, it waits for ever, before it runs any of the program
# (src/node_platform.cc:WorkerThreadsTaskRunner). So as many processes are tried at a time, where
# the limits are not known to leave room: ulimit -u and pids.max count both alike. With less memory
# (bytes) or descriptors than here it waits or dies.
can_start() {
  why=
  processes=
  {
    while read -r line; do
      case $line in
        'Max processes '*) set -- $line && processes=$3 ;;
        'Max open files '*)
          set -- $line
          [ "$5" = unlimited ] || [ "$5" -ge 24 ] || why="the limit of descriptors is too low (ulimit -n)"
          ;;
        'Max address space '*)
          set -- $line
          [ "$4" = unlimited ] || [ "$4" -ge 409600000 ] || why="the limit of memory is too low (ulimit -v)"
          break # a shell reads byte by byte
          ;;
      esac
    done </proc/self/limits
    [ -n "$why" ] || has_room || (: & : & : & : & : & : & wait) ||
      why="no process or thread can be created: the limit is reached (ulimit -u, or pids.max of the cgroup)"
  } 2>/dev/null
  [ -n "$why" ] || return 0
  echo "tsoverlay: $why" >&2
  exit 2
}

# Whether there is room for far more processes than are tried. Whatever can't be known counts as no.
has_room() {
  [ "$processes" = unlimited ] || {
    # The threads of all users.
    read -r line </proc/loadavg && set -- $line && all=${4#*/} && [ "$processes" -gt $((all + 64)) ] || return 1
  }
  # Another namespace than the first (kernel: PROC_CGROUP_INIT_INO) hides cgroups that this one lies
  # in, and their limits.
  [ "$cgroups" = 4026531835 ] || return 1
  kind=
  while IFS=: read -r line kind group; do
    case $line:$kind in
      *pids*) kind=pids && break ;;
      0:) break ;;
    esac
  done </proc/self/cgroup || return 1
  hierarchy=/sys/fs/cgroup${kind:+/$kind}
  directory=$hierarchy${group%/}
  while :; do
    [ -d "$directory" ] || return 1
    [ ! -e "$directory/pids.max" ] || {
      read -r most <"$directory/pids.max" && read -r now <"$directory/pids.current" || return 1
      [ "$most" = max ] || [ "$most" -gt $((now + 64)) ] || return 1
    }
    [ "$directory" != "$hierarchy" ] || return 0
    directory=${directory%/*}
  done
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
[ -z "${TSOVERLAY_STARTING-}" ] || exec 9>&-
wait "$server" 2>/dev/null # where some shells would name the signal
status=$?
[ "$status" -ne 0 ] || exit 2
[ "$status" -gt 128 ] || exit "$status"
why=
case $status in 133 | 134) why=": it can't have the threads or the memory that it needs (ulimit -u, ulimit -v, or pids.max of the cgroup)" ;; esac
echo "tsoverlay: the server was ended by signal $((status - 128)) before the mount was live$why" >&2
exit 2

#!/usr/bin/env bash
# Builds, runs the tests, and checks for leftovers.
#
# Usage: scripts/test.sh [unit|mount|faults|differential]...   (default: all of them)
#   TMPDIR            where layers and mounts are created; its file system must support whiteout
#                     devices and trusted.* attributes (not a container's own overlay)
#   DIFFERENTIAL      more options for the differential test, such as "--seeds 60 --calls 1500"
#   LIMIT             time limit of the whole run, in seconds (4200); long differential runs need
#                     more; a test that is not finished then has failed
#   SUMMARY_FILE      write the last line to this file instead of standard output
#
# The last line is `N passed, N failed`; the exit status is 0 if nothing failed.
set -u
cd "$(dirname "$0")/.." || exit 2

run=$(mktemp -d "${TMPDIR:-/tmp}/tsoverlay-run-XXXXXX") || exit 2
run=$(realpath "$run")
chmod 755 "$run"
# This variable identifies the processes of this run, the directory identifies its mounts.
export TMPDIR=$run TSOVERLAY_RUN=$run
# No resident server: a server ends with its mount.
export TSOVERLAY_SERVER=
passed=0
failed=0
LIMIT=${LIMIT:-4200}

say() { printf '\n--- %s\n' "$*"; }
pass() { passed=$((passed + 1)); }
fail() {
  failed=$((failed + 1))
  echo "FAILED: $*"
}

# Processes of this run that still exist, except this script's own.
processes() {
  local environ pid
  for environ in /proc/[0-9]*/environ; do
    pid=${environ#/proc/}
    pid=${pid%/environ}
    [ "$pid" != $$ ] && [ "$pid" != "$BASHPID" ] || continue
    { tr '\0' '\n' <"$environ" | grep -qxF "TSOVERLAY_RUN=$run"; } 2>/dev/null || continue
    [ "$(sed -n 's/^PPid:\t//p' "/proc/$pid/status" 2>/dev/null)" != $$ ] || continue
    echo "$pid"
  done
}
# Mountpoints below the run's directory and below the fixtures of tap, the innermost first.
mounts() {
  awk -v a="$run/" -v b="$PWD/.tap/" \
    'index($5, a) == 1 || index($5, b) == 1 { print $5 }' /proc/self/mountinfo | tac
}
loops() { losetup -a 2>/dev/null | grep -F "$run/" | cut -d: -f1; }

# Fails for each leftover and removes it.
leftovers() {
  local it
  for it in $(processes); do
    fail "process left: $it $(tr '\0' ' ' <"/proc/$it/cmdline" 2>/dev/null)"
    kill -KILL "$it" 2>/dev/null
  done
  while read -r it; do
    fail "mount left: $it"
    umount -l "$(printf '%b' "$it")"
  done < <(mounts)
  for it in $(loops); do
    fail "loop device left: $it"
    losetup -d "$it"
  done
}
# The running jobs are killed first, so that they start nothing more.
trap 'kill $(jobs -p) 2>/dev/null; wait; leftovers >/dev/null 2>&1; rm -rf --one-file-system "$run"' EXIT
trap 'exit 130' INT TERM HUP

# Prints the kernel stacks of a process' threads that do not wait for work, to show the place of a
# hang.
describe() {
  local pid=$1 task
  echo "process $pid, parent $(sed -n 's/^PPid:\t//p' "/proc/$pid/status"):" \
    "$(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c1-300)"
  for task in "/proc/$pid/task"/*; do
    grep -q 'futex_do_wait\|do_epoll_wait' "$task/stack" ||
      echo "  ${task##*/} $(sed -n 's/^State:\t//p' "$task/status"): $(tr '\n' ' ' <"$task/stack")"
  done
} 2>/dev/null

# Aborts the FUSE connections of this run's mounts. A process that waits for a FUSE answer can't be
# killed before that.
abort_connections() {
  local device
  mountpoint -q /sys/fs/fuse/connections || mount -t fusectl fusectl /sys/fs/fuse/connections 2>/dev/null
  awk -v a="$run/" -v b="$PWD/.tap/" \
    '(index($5, a) == 1 || index($5, b) == 1) && / - fuse/ { print $3 }' /proc/self/mountinfo |
    while IFS=: read -r _ device; do
      echo "fuse connection $device: $(cat "/sys/fs/fuse/connections/$device/waiting") requests wait"
      echo 1 >"/sys/fs/fuse/connections/$device/abort"
    done 2>/dev/null
}

# watch PID QUIET FILE: waits for a child of this script. If FILE gets no new result of a test file
# for QUIET seconds, or after LIMIT seconds, it prints the hanging processes and kills them.
watch() {
  local child=$1 quiet=$2 out=$3 results=0 now since=$SECONDS pid
  while kill -0 "$child" 2>/dev/null; do
    sleep 1
    now=$(grep -Ec '^(not )?ok ' "$out")
    if [ "$now" != "$results" ]; then
      results=$now
      since=$SECONDS
    fi
    [ $((SECONDS - since)) -gt "$quiet" ] || [ $SECONDS -gt "$LIMIT" ] || continue
    echo "no result for $((SECONDS - since)) s, $SECONDS s in all; the last lines:"
    tail -5 "$out"
    mounts
    for pid in $(processes); do describe "$pid"; done
    abort_connections
    for pid in $child $(processes); do kill -KILL "$pid"; done 2>/dev/null
    break
  done
  wait "$child"
}

# tap_group NAME SECONDS JOBS FILE...: runs test files with a time limit of SECONDS for each.
tap_group() {
  local name=$1 seconds=$2 jobs=$3 out="$run/$1.tap" counts p f
  shift 3
  if [ $# -eq 0 ]; then
    echo "no tests"
    return
  fi
  : >"$out"
  npx --no-install tap run --disable-coverage --reporter=min --output-file="$out" \
    --timeout="$seconds" --jobs="$jobs" "$@" </dev/null &
  local child=$!
  # Prints the result of each file when it ends, so that an aborted run shows its progress.
  tail -n +1 -f --pid="$child" "$out" | grep --line-buffered -E '^(not )?ok ' &
  local progress=$!
  # tap has its own limit for a file; this limit is for processes that tap can't end.
  watch "$child" $((seconds + 60)) "$out"
  local status=$?
  wait "$progress"
  # The failed tests, with the beginning of their reasons.
  grep -E -A20 '^ +not ok ' "$out" 2>/dev/null | head -200
  counts=$(grep -E '^# \{ total: ' "$out" 2>/dev/null | tail -1)
  p=$(sed -n 's/.*[ ,]pass: \([0-9]*\).*/\1/p' <<<"$counts")
  f=$(sed -n 's/.*[ ,]fail: \([0-9]*\).*/\1/p' <<<"$counts")
  passed=$((passed + ${p:-0}))
  failed=$((failed + ${f:-0}))
  if [ -z "$counts" ]; then
    fail "$name: no result"
  elif [ $status -ne 0 ] && [ "${f:-0}" -eq 0 ]; then
    fail "$name: exit status $status"
  fi
  rm -f "$out"
}

# differential NAME OPTION...: runs random calls on a union and on kernel overlayfs.
differential() {
  local name=$1
  shift
  echo "$name"
  # shellcheck disable=SC2086 # several words
  node test/differential/launch.mjs --dir "$run" "$@" ${DIFFERENTIAL:-} </dev/null &
  if watch $! "$LIMIT" /dev/null; then
    pass
  else
    fail "$name"
  fi
}

# Whether root of a user namespace may mount overlayfs. The namespace removes everything when it
# ends.
kernel_overlay_in_userns() {
  # shellcheck disable=SC2016 # for the shell in the namespace
  unshare --user --map-root-user --mount sh -c '
    mount -t tmpfs tmpfs "$1" && cd "$1" && mkdir l u w m &&
    mount -t overlay overlay -o userxattr,lowerdir=l,upperdir=u,workdir=w m' sh "$run" 2>/dev/null
}

[ $# -gt 0 ] || set -- unit mount faults differential
say build
if npm run --silent build; then pass; else fail build; fi

for group in "$@"; do
  say "$group"
  shopt -s nullglob globstar
  case $group in
    unit) tap_group unit 300 2 test/unit/**/*.test.ts ;;
    mount)
      if [ "$(id -u)" != 0 ] || [ ! -c /dev/fuse ]; then
        echo "skipped: real mounts need root and /dev/fuse"
      else
        tap_group mount 600 1 test/mount/**/*.test.ts
      fi
      ;;
    faults)
      if [ "$(id -u)" != 0 ] || ! grep -qw overlay /proc/filesystems; then
        echo "skipped: needs root and kernel overlayfs"
      else
        modes=cached,passthrough,noopen,xattr,user
        if kernel_overlay_in_userns; then
          modes=$modes,userns
        else
          echo "skipped: overlayfs can't be mounted in a user namespace"
        fi
        # All faults together take long: see CONTRIBUTING.md.
        node test/faults/launch.mjs --dir "$run" --mode $modes --part 1/16 --one </dev/null &
        if watch $! "$LIMIT" /dev/null; then pass; else fail "faults"; fi
      fi
      ;;
    differential)
      if [ "$(id -u)" != 0 ] || ! grep -qw overlay /proc/filesystems; then
        echo "skipped: needs root and kernel overlayfs"
      else
        if kernel_overlay_in_userns; then
          differential "user namespace, fixed seeds" --userns --seed 1 --seeds 6 --calls 500
          differential "user namespace, a random seed" --userns --seeds 1 --calls 500
        else
          echo "skipped: overlayfs can't be mounted in a user namespace"
        fi
        for io in cached passthrough; do
          differential "$io, fixed seeds" --io $io --seed 1 --seeds 6 --calls 500
          # The run prints its seed, which can be given to --seed.
          differential "$io, a random seed" --io $io --seeds 1 --calls 500
        done
      fi
      ;;
    *) fail "no such group: $group" ;;
  esac
done

say leftovers
before=$failed
leftovers
[ "$failed" -eq "$before" ] && pass && echo none

summary="$passed passed, $failed failed"
if [ -n "${SUMMARY_FILE:-}" ]; then
  echo "$summary" >"$SUMMARY_FILE"
else
  printf '\n%s\n' "$summary"
fi
[ "$failed" -eq 0 ]

# shellcheck shell=bash
# Common parts of scripts/podman.sh and scripts/docker.sh, which source this file. $label and $top
# are set when a step runs.

# ---- Steps. Each is a function that runs in a subshell with `set -e`. It checks results with
# `same`.

passed=0
failed=0
# step NAME FUNCTION
step() {
  local name="$label: $1" start=${EPOCHREALTIME/./} status
  # Testing the subshell's status directly (`if`, `||`) would disable `set -e` in it.
  (
    set -eE
    trap 'echo "line $LINENO: ${BASH_COMMAND%%$'"'\n'"'*}" >&2' ERR
    "$2"
  ) >"$top/out" 2>&1 </dev/null
  status=$?
  local took=$(((${EPOCHREALTIME/./} - start) / 1000))
  if [ $status -eq 0 ]; then
    passed=$((passed + 1))
    echo "ok $name ($took ms)"
    [ -z "${VERBOSE:-}" ] || sed 's/^/    /' "$top/out"
  else
    failed=$((failed + 1))
    echo "FAILED $name ($took ms)"
    tail -n 30 "$top/out" | sed 's/^/    /'
  fi
}

# same WHAT GOT WANTED
same() {
  [ "$2" = "$3" ] && return
  echo "$1:"
  diff <(echo "$3") <(echo "$2") | sed 's/^</  wanted:/; s/^>/  got:   /'
  return 1
}

# Lists the metadata and content of each file of a container, to compare two containers. Files that
# the runtime creates are left out.
# shellcheck disable=SC2016 # for the shell of the container
listing='cd / && find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./etc/hosts \
    -o -path ./etc/hostname -o -path ./etc/resolv.conf -o -path ./etc/mtab -o -path ./.dockerenv \) -prune -o -print |
  sort | while IFS= read -r f; do
    sum=; [ ! -f "$f" ] || [ -h "$f" ] || sum=$(md5sum <"$f")
    # The size of a directory depends on the file system.
    if [ -d "$f" ] && [ ! -h "$f" ]; then stat -c "%A %u:%g %N" "$f"
    else stat -c "%A %u:%g %s %h %N %Y $sum" "$f"; fi
  done'

# The changes that the steps make in a container of the image and check afterwards.
# shellcheck disable=SC2016,SC2034 # for the shell of the container
modification='
  echo changed >/etc/word
  echo added >/etc/new
  rm /etc/gone
  rm -r /full
  rm -r /again && mkdir /again && echo new >/again/new
  mv /etc/before /etc/after
  chmod 4750 /data/mode
  chown 5:6 /data/owner
  ln -s word /etc/link
  ln /data/one /data/three
  mkfifo /data/fifo
  echo more >>/data/one
  mkdir -p /deep/a/b/c && echo deep >/deep/a/b/c/file
  dd if=/dev/zero of=/data/sparse bs=1 count=1 seek=10M 2>/dev/null
  dd if=/dev/urandom of=/data/large bs=1M count=8 2>/dev/null
  touch -d "2001-02-03 04:05:06" /data/time
  cmp /data/one /data/two
  [ $(stat -c %h /data/two) = 3 ]
  [ ! -e /full ] && [ "$(ls /again)" = new ]
'

# The differences between a container with these changes and its image. Links, sparse files and so
# on are plain files in this list. The runtimes compare both trees by walking them.
# shellcheck disable=SC2034 # used by the scripts that source this
differences='C /again
A /again/new
D /again/old
C /data
A /data/fifo
A /data/large
C /data/mode
C /data/one
C /data/owner
A /data/sparse
A /data/three
C /data/time
C /data/two
A /deep
A /deep/a
A /deep/a/b
A /deep/a/b/c
A /deep/a/b/c/file
C /etc
A /etc/after
D /etc/before
D /etc/gone
A /etc/link
A /etc/new
C /etc/word
D /full'

# Checks that $top/committed, a listing, contains these changes.
modified() {
  grep -q ' 5:6 .*/data/owner' "$top/committed"
  grep -q '^-rwsr-x--- .*/data/mode' "$top/committed"
  grep -q '^prw.*/data/fifo' "$top/committed"
  same 'links of a file' "$(grep -cE ' 3 \./data/(one|two|three) ' "$top/committed")" 3
  same 'a removed directory' "$(grep -c ' \./full' "$top/committed" || true)" 0
  same 'a directory made anew' "$(grep -o '\./again/.* ' "$top/committed" | cut -d' ' -f1)" ./again/new
}

# Creates an image: a static busybox and some files to change.
rootfs() {
  local root=$top/rootfs name
  mkdir -p "$root"/{bin,etc,tmp,data,full/sub,again,proc,sys,dev,run}
  cp "$(command -v busybox)" "$root/bin/busybox"
  for name in $(busybox --list); do
    [ "$name" = busybox ] || ln -s busybox "$root/bin/$name"
  done
  echo 'root:x:0:0::/:/bin/sh' >"$root/etc/passwd"
  echo 'from the image' >"$root/etc/word"
  for name in etc/gone etc/before etc/owned full/sub/file full/file again/old data/mode data/owner data/time; do
    echo "$name" >"$root/$name"
  done
  echo twice >"$root/data/one"
  ln "$root/data/one" "$root/data/two"
  chmod 1777 "$root/tmp"
  # An owner other than the user that creates the archive.
  tar -C "$root" --owner=0 --group=0 --exclude=./etc/owned -cf "$top/rootfs.tar" .
  tar -C "$root" --owner=7 --group=8 -rf "$top/rootfs.tar" ./etc/owned
  rm -r "$root"
}


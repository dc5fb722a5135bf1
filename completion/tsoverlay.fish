# fish completion for tsoverlay: copy this file into ~/.config/fish/completions/.
# Generated from src/config/table.ts and src/cli/commands by scripts/options.mjs: npm run generate

# The last option of the comma-separated list on the command line. The candidates are whole lists.
function __tsoverlay_mount_options
    set -l list (commandline -ct)
    set -l before (string match -r '^.*,' -- $list)
    set -l item (string replace -r '^.*,' '' -- $list)
    set -l name (string replace -r '=.*' '' -- $item)
    set -l value (string replace -r '^[^=]*=' '' -- $item)
    if not string match -q '*=*' -- $item
        printf "$before%s\t%s\n" \
            'lowerdir=' 'read-only layers, the top one first (required)' \
            'lowerdir+=' 'one more layer, below the others' \
            'upperdir=' 'the writable layer; without it the union is read-only' \
            'workdir=' 'an empty directory on the file system of upperdir' \
            'redirect_dir=' 'on, off, follow, nofollow: renames of lower directories (off)' \
            'whiteout=' 'auto, char, xattr, wh: how deletions are recorded (auto)' \
            'index=' 'keep hard links across copy-up (on)' \
            'userxattr' 'user.overlay.* attributes instead of trusted.overlay.*' \
            'volatile' 'never sync; a crash makes the upper layer unusable' \
            'fsync=' '0: never sync, and do not record that (1)' \
            'uidmapping=' 'map user ids; RANGES is DISK:SHOWN:LENGTH, several joined by colons' \
            'gidmapping=' 'map group ids' \
            'squash_to_uid=' 'show this user as the owner of everything' \
            'squash_to_gid=' 'show this group as the owner of everything' \
            'squash_to_root' 'squash_to_uid=0 and squash_to_gid=0, unless they are given' \
            'xattr_permissions=' '0, 1, 2: keep owner, mode and type in an attribute, 1 for root, 2 for any user (0)' \
            'default_permissions' 'Accepted: the kernel always checks permissions.' \
            'io=' 'auto, passthrough, cached: the data mode (auto)' \
            'noopen' 'open and close files without a request, in io=cached' \
            'writeback=' '0: write data to the layer at once, in io=cached (1)' \
            'max_write=' 'maximum data in one write request' \
            'noxattrs=' '1: hide and refuse extended attributes (0)' \
            'noacl' 'hide, refuse and do not enforce POSIX ACLs' \
            'static_nlink' 'show a link count of 1 for every directory' \
            'threaded=' 'Accepted: one thread serves the union, and requests that may wait run beside it.' \
            'xino=' 'Accepted: inode numbers are always unique over the file systems of the layers.' \
            'fsname=' 'the source shown in /proc/mounts' \
            'subtype=' 'the type shown in /proc/mounts, after fuse.' \
            'allow_other' 'allow access by other users (default for root)' \
            'allow_root' 'as root: allow access by root only' \
            'timeout=' 'how long the kernel may cache names and attributes' \
            'own_server' 'as --own-server, for fstab' \
            'log_level=' 'as --log-level, for fstab' \
            'log_file=' 'as --log-file, for fstab' \
            'remount' 'change the flags (ro, rw, nosuid, ...) of an existing mount' \
            'ro' 'Refuse all writing, although there is an upperdir.' \
            'rw' 'Refuse all writing, although there is an upperdir.' \
            'nosuid' 'Ignore set-user-id bits and file capabilities.' \
            'suid' 'Ignore set-user-id bits and file capabilities.' \
            'nodev' 'Devices cannot be opened.' \
            'dev' 'Devices cannot be opened.' \
            'noexec' 'Programs cannot be run.' \
            'exec' 'Programs cannot be run.' \
            'noatime' 'Reading moves no access time.' \
            'atime' 'Reading moves no access time.' \
            'nodiratime' 'Reading a directory moves no access time.' \
            'diratime' 'Reading a directory moves no access time.' \
            'relatime' 'Reading moves an access time that is older than the last change, or than a day (default).' \
            'norelatime' 'Reading moves an access time that is older than the last change, or than a day (default).' \
            'strictatime' 'Reading always moves the access time. A writable union needs io=passthrough for it.' \
            'nostrictatime' 'Reading always moves the access time. A writable union needs io=passthrough for it.' \
            'lazytime' 'Times may be written later.' \
            'nolazytime' 'Times may be written later.' \
            'sync' 'Every write is synchronous.' \
            'async' 'Every write is synchronous.' \
            'dirsync' 'Every change of a directory is synchronous.' \
            'nosymfollow' 'Symlinks are not followed.' \
            'symfollow' 'Symlinks are not followed.' \
            'defaults' 'For mount(8) and systemd, as is every name that begins with x- or X-.' \
            'auto' 'For mount(8) and systemd, as is every name that begins with x- or X-.' \
            'noauto' 'For mount(8) and systemd, as is every name that begins with x- or X-.' \
            'nofail' 'For mount(8) and systemd, as is every name that begins with x- or X-.' \
            '_netdev' 'For mount(8) and systemd, as is every name that begins with x- or X-.' \
            'user' 'For mount(8). They imply nosuid, nodev and noexec, unless a later word says otherwise.' \
            'users' 'For mount(8). They imply nosuid, nodev and noexec, unless a later word says otherwise.' \
            'nouser' 'For mount(8).' \
            'owner' 'For mount(8). They imply nosuid and nodev, unless a later word says otherwise.' \
            'group' 'For mount(8). They imply nosuid and nodev, unless a later word says otherwise.' \
            'noowner' 'For mount(8).' \
            'nogroup' 'For mount(8).' \
            'nousers' 'For mount(8).' \
            'pamconsole' 'For mount(8).' \
            'silent' 'For mount(8).' \
            'loud' 'For mount(8).' \
            'mand' 'For mount(8).' \
            'nomand' 'For mount(8).' \
            'iversion' 'For mount(8).' \
            'noiversion' 'For mount(8).' \
            'comment' 'For mount(8).'
        return
    end
    switch $name
        case 'redirect_dir'
            printf "$before$name=%s\n" on off follow nofollow
        case 'whiteout'
            printf "$before$name=%s\n" auto char xattr wh
        case 'index'
            printf "$before$name=%s\n" on off
        case 'fsync'
            printf "$before$name=%s\n" 1 0 auto volatile
        case 'xattr_permissions'
            printf "$before$name=%s\n" 0 1 2
        case 'io'
            printf "$before$name=%s\n" auto passthrough cached
        case 'writeback'
            printf "$before$name=%s\n" 0 1
        case 'noxattrs'
            printf "$before$name=%s\n" 0 1
        case 'threaded'
            printf "$before$name=%s\n" 0 1
        case 'xino'
            printf "$before$name=%s\n" off auto on
        case 'log_level'
            printf "$before$name=%s\n" trace debug info warn error fatal silent
        case 'lowerdir' 'lowerdir+' 'upperdir' 'workdir'
            set -l upto (string match -r '^.*:' -- $value)
            set -l path (string replace -r '^.*:' '' -- $value)
            for found in (__fish_complete_directories $path '')
                printf "$before$name=$upto%s\n" $found
            end
    end
end

complete -c tsoverlay -f
complete -c tsoverlay -n '__fish_use_subcommand' -s V -l version -d 'print the version'
complete -c tsoverlay -n '__fish_use_subcommand' -s h -l help -d 'print this help'
complete -c tsoverlay -n __fish_use_subcommand -a mount -d 'Mount a union and serve it in the background; return when the mount is live.'
complete -c tsoverlay -n __fish_use_subcommand -a umount -d 'Unmount unions, and wait until their layers are closed.'
complete -c tsoverlay -n __fish_use_subcommand -a unmount -d 'Unmount unions, and wait until their layers are closed.'
complete -c tsoverlay -n __fish_use_subcommand -a ls -d 'List the unions in this mount namespace and their servers.'
complete -c tsoverlay -n __fish_use_subcommand -a stats -d 'Print the counters of a mount.'
complete -c tsoverlay -n __fish_use_subcommand -a which -d 'Print the layer and the path that serve a file of a union, and the reason.'
complete -c tsoverlay -n __fish_use_subcommand -a top -d 'Show the mounted unions and their request rates, and refresh the display.'
complete -c tsoverlay -n __fish_use_subcommand -a server -d 'Control the resident server, which serves the mounts of one user.'
complete -c tsoverlay -n '__fish_seen_subcommand_from server; and not __fish_seen_subcommand_from start stop status' -a start -d 'Start a server without a mount, and return when it accepts requests.'
complete -c tsoverlay -n '__fish_seen_subcommand_from server; and not __fish_seen_subcommand_from start stop status' -a stop -d 'Unmount everything that the server serves, and wait until it has ended.'
complete -c tsoverlay -n '__fish_seen_subcommand_from server; and not __fish_seen_subcommand_from start stop status' -a status -d 'Print whether the server runs and its mounts; the exit status is 3 if it does not run.'
complete -c tsoverlay -n '__fish_seen_subcommand_from mount' -s o -l options -x -a '(__tsoverlay_mount_options)' -d 'mount options; may be given more than once'
complete -c tsoverlay -n '__fish_seen_subcommand_from mount' -s f -l foreground -d 'serve in this process; end when the mount ends'
complete -c tsoverlay -n '__fish_seen_subcommand_from mount' -s s -l sloppy -d 'accept unknown mount options with a warning'
complete -c tsoverlay -n '__fish_seen_subcommand_from mount' -l log-level -x -a 'trace debug info warn error fatal silent' -d 'lowest level to log (default info; for the system log: warn)'
complete -c tsoverlay -n '__fish_seen_subcommand_from mount' -l log-file -r -F -d 'append log lines (JSON) to this file; the default of a background server is the system log'
complete -c tsoverlay -n '__fish_seen_subcommand_from mount' -l transport -x -a 'kernel fuse-native' -d 'how to reach the kernel; fuse-native uses that npm package'
complete -c tsoverlay -n '__fish_seen_subcommand_from mount' -l own-server -d 'serve this mount in a process of its own'
complete -c tsoverlay -n '__fish_seen_subcommand_from mount' -l linger -x -d 'how long a server started by this command stays without a mount'
complete -c tsoverlay -n '__fish_seen_subcommand_from mount' -s h -l help -d 'print this help'
complete -c tsoverlay -n '__fish_seen_subcommand_from mount' -a '(__fish_complete_directories)'
complete -c tsoverlay -n '__fish_seen_subcommand_from umount unmount' -s l -l lazy -d 'also detach busy mounts; open files keep working'
complete -c tsoverlay -n '__fish_seen_subcommand_from umount unmount' -s a -l all -d 'all mounts that `tsoverlay ls` shows; print the name of each unmounted one'
complete -c tsoverlay -n '__fish_seen_subcommand_from umount unmount' -s h -l help -d 'print this help'
complete -c tsoverlay -n '__fish_seen_subcommand_from umount unmount' -a '(__fish_complete_directories)'
complete -c tsoverlay -n '__fish_seen_subcommand_from ls' -l json -d 'as JSON, an array'
complete -c tsoverlay -n '__fish_seen_subcommand_from ls' -s h -l help -d 'print this help'
complete -c tsoverlay -n '__fish_seen_subcommand_from stats' -l json -d 'as JSON'
complete -c tsoverlay -n '__fish_seen_subcommand_from stats' -l prometheus -d 'in Prometheus\' text format'
complete -c tsoverlay -n '__fish_seen_subcommand_from stats' -s h -l help -d 'print this help'
complete -c tsoverlay -n '__fish_seen_subcommand_from stats' -a '(__fish_complete_directories)'
complete -c tsoverlay -n '__fish_seen_subcommand_from which' -l json -d 'as JSON'
complete -c tsoverlay -n '__fish_seen_subcommand_from which' -s h -l help -d 'print this help'
complete -c tsoverlay -n '__fish_seen_subcommand_from which' -F
complete -c tsoverlay -n '__fish_seen_subcommand_from top' -s d -l delay -x -d 'time between two updates'
complete -c tsoverlay -n '__fish_seen_subcommand_from top' -l once -d 'print the values after one delay, and end; needs no terminal'
complete -c tsoverlay -n '__fish_seen_subcommand_from top' -s h -l help -d 'print this help'
complete -c tsoverlay -n '__fish_seen_subcommand_from server; and __fish_seen_subcommand_from start' -l linger -x -d 'how long the server stays without a mount'
complete -c tsoverlay -n '__fish_seen_subcommand_from server; and __fish_seen_subcommand_from start' -s h -l help -d 'print this help'
complete -c tsoverlay -n '__fish_seen_subcommand_from server; and __fish_seen_subcommand_from stop' -s h -l help -d 'print this help'
complete -c tsoverlay -n '__fish_seen_subcommand_from server; and __fish_seen_subcommand_from status' -l json -d 'as JSON'
complete -c tsoverlay -n '__fish_seen_subcommand_from server; and __fish_seen_subcommand_from status' -s h -l help -d 'print this help'

#!/bin/sh
# Runs a static program where there is nothing else: in a root folder of its own that holds the
# program, one file, and (for another machine's program) the emulator, and that nobody can write.
# Usage: scratch.sh UID FILE EMULATOR BINARY ARGUMENT...; EMULATOR is "" or a command line. The
# file is called /file in there. Must be started in a mount name space of its own, as root.
set -eu

uid=$1 file=$2 emulator=$3 binary=$4
shift 4

root=$(mktemp -d)
mount -t tmpfs -o mode=0755 tmpfs "$root"
cp "$binary" "$root/exporter"
cp "$file" "$root/file"
chmod 0755 "$root/exporter"
chmod 0444 "$root/file"
set -- /exporter "$@"
if [ -n "$emulator" ]; then
    cp "$(command -v "${emulator%% *}")" "$root/emulator"
    # Word by word: -cpu NAME.
    # shellcheck disable=SC2086
    set -- /emulator ${emulator#* } "$@"
fi
mount -o remount,ro "$root"
exec chroot --userspec="$uid:$uid" "$root" "$@"

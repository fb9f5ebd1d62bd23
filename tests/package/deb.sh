#!/usr/bin/env bash
# The Debian packages: lintian finds no error, and dpkg installs, upgrades, removes and purges each
# of them in a copy of this machine's own system (an overlay, so nothing of it stays). Argument:
# the folder with the packages. Needs root, dpkg and lintian; says so where one is missing.
set -euo pipefail

. "$(dirname "$(realpath "$0")")/common.sh"
readonly KEY=/etc/$NAME/api-key
readonly WANTS=/etc/systemd/system/multi-user.target.wants/$NAME.service
# Where dpkg keeps notes of its own.
readonly NOTES='^/var/(log|lib/dpkg|cache)/'

absent() { [ ! -e "$1" ] && [ ! -L "$1" ]; }
mode() { [ "$(stat --format '%a %U' "$1")" = "$2" ]; }
state() { [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1")" = "$2" ]; }
traces() { find /etc /usr /var -name "*$NAME*" 2>/dev/null | sed -E "\\,$NOTES,d" | sort; }

# The same package with a higher version.
newer() {
    local folder
    folder=$(mktemp --directory)
    dpkg-deb --raw-extract "$1" "$folder/package"
    sed -i 's/^Version: .*/&.1/' "$folder/package/DEBIAN/control"
    dpkg-deb --root-owner-group --build "$folder/package" "$folder/newer.deb" >/dev/null
    echo "$folder/newer.deb"
}

runner_of() {
    case $1 in
    armhf) echo "qemu-arm-static -cpu arm1176" ;;
    arm64) echo "qemu-aarch64-static -cpu cortex-a53" ;;
    esac
}

# One package from its installation to its purge. Runs inside the overlay.
life() {
    local deb=$1 architecture package before
    architecture=$(dpkg-deb --field "$deb" Architecture)
    package=$NAME:$architecture
    before=$(traces)
    dpkg --add-architecture "$architecture"

    echo "$architecture"
    check 'it is installed' dpkg --install "$deb"
    check 'the program runs' timeout 20 $(runner_of "$architecture") /usr/bin/$NAME --version
    check 'the folder of the key is closed' mode /etc/$NAME '700 root'
    check 'no key comes along' absent "$KEY"
    check 'the manual page is there' test -s /usr/share/man/man1/$NAME.1.gz
    # Machines without systemd have no helper that could enable it.
    command -v deb-systemd-helper >/dev/null && check 'the service is enabled' test -L $WANTS

    install -m 0600 /dev/stdin "$KEY" <<<"NNSXS.KEY"
    echo 'TTN_TTL=20' >>/etc/default/$NAME
    command -v systemctl >/dev/null && systemctl --quiet disable $NAME.service
    check 'it is upgraded' dpkg --install "$(newer "$deb")"
    check 'the key is kept' grep -q NNSXS "$KEY"
    check 'the settings are kept' grep -q TTN_TTL=20 /etc/default/$NAME
    check 'a disabled service stays so' absent $WANTS

    check 'it is removed' dpkg --remove "$package"
    check 'the program is gone' absent /usr/bin/$NAME
    check 'the key outlives a removal' grep -q NNSXS "$KEY"
    check 'it is installed again' dpkg --install "$deb"
    check 'the settings are those from before' grep -q TTN_TTL=20 /etc/default/$NAME
    check 'it is purged' dpkg --purge "$package"
    check 'nothing stays behind' test "$(traces)" = "$before"
}

# Runs a command on a copy of this system, made of memory, in a name space of its own.
in_overlay() {
    unshare --mount bash -euc '
        root=$(mktemp --directory)
        trap "umount -R $root; rmdir $root" EXIT
        mount -t tmpfs tmpfs "$root"
        mkdir "$root/upper" "$root/work" "$root/merged"
        mount -t overlay overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" "$root/merged"
        mount -t proc proc "$root/merged/proc"
        mount --bind /dev "$root/merged/dev"
        chroot "$root/merged" "$@"
    ' overlay "$@"
}

run_lintian() {
    local report
    report=$(lintian --allow-root "$1") || true
    [ -z "$report" ] || echo "$report"
    ! grep -q '^E: ' <<<"$report"
}

if [ "$1" = --life ]; then
    life "$2"
    exit
fi

self=$(realpath "$0")
for deb in "$(realpath "$1")"/*.deb; do
    if command -v lintian >/dev/null; then
        check "lintian finds no error in ${deb##*/}" run_lintian "$deb"
    else
        echo "NOT RUN, since lintian is missing: lintian over ${deb##*/}"
    fi
    if [ "$(id -u)" = 0 ] && command -v dpkg >/dev/null && in_overlay true 2>/dev/null; then
        in_overlay "$self" --life "$deb"
    else
        echo "NOT RUN, since it needs root, dpkg and overlayfs: the life of ${deb##*/}"
    fi
done

#!/usr/bin/env bash
# The systemd unit under a real systemd: boots one in name spaces of its own, over a copy of this
# machine's system made of memory, installs the package there and uses the service. Every system
# call that the unit's filter refuses kills the process here, so that none goes unnoticed.
# Arguments: the package for this machine, the fake Things Stack's program. Needs root, systemd,
# dpkg, overlayfs and cgroup2; says so where one is missing.
set -euo pipefail

. "$(dirname "$(realpath "$0")")/common.sh"
readonly ARCHITECTURE=$(dpkg --print-architecture)
readonly SHIMS=/run/shims
readonly FOLDER=/etc/$NAME
readonly KEY=$FOLDER/api-key
# The unit that the functions below look at.
unit=$NAME.service

fail() {
    echo "FAILED  $*" >&2
    journalctl --no-pager --lines 30 >&2 || true
    exit 1
}

property() { systemctl show --property "$1" --value "$unit"; }
is() { [ "$(property "$1")" = "$2" ]; }
process_has() { grep -qE "$1" "/proc/$(property MainPID)/status"; }
metrics_have() { grep -qE "$1" <<<"$metrics"; }
restarted() { [ "$(property NRestarts)" -ge "$1" ] && is ActiveState active; }
port_is_closed() { ! (exec 3<>/dev/tcp/127.0.0.1/9714) 2>/dev/null; }

# scrape PATH [PORT [HEADER]]
scrape() {
    exec 3<>"/dev/tcp/127.0.0.1/${2:-9714}"
    printf 'GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n' "$1" "${3:+$3$'\r\n'}" >&3
    timeout 20 cat <&3
    exec 3>&-
}

has_logged() { journalctl --unit "$1" --no-pager | grep -q "$2"; }
is_refused() { grep -q '^HTTP/1.1 401' <<<"$1"; }
has_gateways() { grep -qE '^ttn_exporter_gateways.*connected.* [1-9]' <<<"$1"; }
exposure() { systemd-analyze security --no-pager "$1" | sed -n 's/.*exposure level for.*: \([0-9.]*\) .*/\1/p'; }

# A token for clients, as a credential: the user of the service cannot open the file itself.
probe_token() {
    local name=$1 folder_name=$2 settings=$3 port=$4
    unit=$name.service
    echo "TTN_WEB_TOKEN_FILE=/run/credentials/$unit/web-token" >>"$settings"
    systemctl restart "$unit" 2>/dev/null || true
    check "$unit: a setting without the token is an error" soon has_logged "$unit" 'is empty'
    check "$unit: and nobody gets in" test -z "$(scrape /metrics "$port" 2>/dev/null)"
    install -m 0600 /dev/stdin "$FOLDER/$folder_name" <<<'a-token-for-clients'
    check "$unit: it starts with the token" soon systemctl restart "$unit"
    check "$unit: without the token a client is refused" is_refused "$(scrape /metrics "$port")"
    check "$unit: with it there are metrics" \
        has_gateways "$(scrape /metrics "$port" 'Authorization: Bearer a-token-for-clients')"
}

# README's commands for an instance, as INSTANCE at PORT.
instance_as_written() {
    readme_block '@club' | as_written $KEY "s/club/$1/g; s/:9716/127.0.0.1:$2/; s,https://$1[^']*,http://127.0.0.1:9715,"
}

# Two further keys, each with an instance of the template unit.
probe_instances() {
    local instance port
    for instance in home:9724 club:9725; do
        port=${instance#*:} instance=${instance%:*}
        unit=$NAME@$instance.service
        check "$unit: a start without a key" systemctl start "$unit"
        check "$unit: starts nothing" is ConditionResult no
        check "$unit: it is enabled and starts as README says" instance_as_written "$instance" "$port"
        check "$unit: it said that it is ready" is ActiveState active
        check "$unit: it sees the gateways" has_gateways "$(scrape /metrics "$port")"
        check "$unit: not as root" process_has '^Uid:.*[1-9][0-9]{4}'
        check "$unit: as little exposed as the unit" test "$(exposure "$unit")" = "$(exposure $NAME.service)" -a -n "$(exposure "$unit")"
    done
    probe_token $NAME@home home.web-token $FOLDER/home.env 9724
    local before
    before=$(property MainPID)
    systemctl restart $NAME@club
    check 'a restart of one instance leaves the other alone' is MainPID "$before"
    unit=$NAME.service
}

# Without a package: the binary with the name that it has in a release, in the folder /run/binary.
binary_as_written() {
    cd /run/binary
    readme_block '/usr/local/bin' | as_written "$1" "s/-arm64/-$ARCHITECTURE/"
}

probe_binary() {
    unit=$NAME.service
    check 'binary: it is enabled and starts as README says' binary_as_written "$1"
    check 'binary: it runs from /usr/local/bin' \
        test "$(readlink "/proc/$(property MainPID)/exe")" = /usr/local/bin/$NAME
    check 'binary: it sees the gateways' has_gateways "$(scrape /metrics)"
}

package_as_written() {
    cd /run/packages
    readme_block 'apt install' | as_written /run/key "s/_arm64/_$ARCHITECTURE/"
}

# Runs as a service inside the booted system, over the functions above.
probe() {
    local deb=$1 fake=$2 metrics before version
    version=$(dpkg-deb --field "$deb" Version)
    mkdir -p /run/systemd/system/$NAME.service.d /run/systemd/system/$NAME@.service.d
    printf '[Service]\nSystemCallErrorNumber=kill\nWatchdogSec=3\nRestartSec=1\nEnvironment=TTN_SERVER=http://127.0.0.1:9715\n' |
        tee /run/systemd/system/$NAME{,@}.service.d/strict.conf >/dev/null

    shim sudo <<<'#!/bin/sh
exec "$@"'
    start_fake "$fake" 127.0.0.1:9715 /run/key
    mkdir /run/packages
    cp "$deb" "/run/packages/${NAME}_${version}_$ARCHITECTURE.deb"

    check 'the package is installed' dpkg --install "$deb"
    check 'the service is enabled' systemctl --quiet is-enabled $NAME.service
    check 'a start without a key' systemctl start $NAME.service
    check 'starts nothing' is ActiveState inactive
    check 'because there is none' is ConditionResult no
    check 'it is purged before it had a key' dpkg --purge $NAME

    check 'it is installed and starts with a key as README says' package_as_written
    check 'it said that it is ready' is ActiveState active
    check 'not as root' process_has '^Uid:.*[1-9][0-9]{4}'
    check 'without capabilities' process_has '^CapEff:\s0+$'
    check 'behind the filter of system calls' process_has '^Seccomp:\s2$'

    metrics=$(scrape /metrics)
    check 'it sees the gateways' metrics_have '^ttn_exporter_gateways.*connected.* [1-9]'
    for figure in open_fds max_fds threads start_time_seconds resident_memory_bytes; do
        check "it knows process_$figure" metrics_have "^process_$figure [0-9]"
    done
    metrics=$(scrape /)
    check 'it serves the start page' metrics_have '^HTTP/1.1 200'
    sleep 7
    check 'the watchdog is content' is NRestarts 0
    kill -STOP "$(property MainPID)"
    check 'a process that hangs is replaced' soon restarted 1
    kill -KILL "$(property MainPID)"
    check 'a process that died is replaced' soon restarted 2

    probe_instances
    unit=$NAME@club.service
    before=$(property MainPID)
    unit=$NAME.service
    check 'it is upgraded' dpkg --install "$deb"
    check 'it runs after an upgrade' soon is ActiveState active
    unit=$NAME@club.service
    check 'an upgrade restarts the instances' test "$(property MainPID)" != "$before"
    check 'and they run' soon is ActiveState active
    unit=$NAME.service
    probe_token $NAME web-token /etc/default/$NAME 9714
    check 'it stops' systemctl stop $NAME.service
    check 'with success' is Result success
    check 'it starts again' systemctl start $NAME.service
    mkdir /run/binary
    cp /usr/bin/$NAME "/run/binary/$NAME-${version%-*}-linux-$ARCHITECTURE"
    check 'it is purged' dpkg --purge $NAME
    check 'and runs no more' port_is_closed
    check 'nor do the instances' test ! -e /sys/fs/cgroup/system.slice/system-ttn*/$NAME@club.service
    check 'the instances are not enabled' test -z "$(find /etc/systemd/system -name "$NAME*")"
    check 'the keys are gone' test ! -e $FOLDER
    probe_binary /run/key
    echo passed >/run/result/status
}

# Runs in name spaces of its own: makes the copy of the system and becomes its process 1.
boot() {
    local root=$1 system=$1/merged device
    mount -t tmpfs tmpfs "$root"
    mkdir "$root/upper" "$root/work" "$system"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" "$system"
    mount -t proc proc "$system/proc"
    # This machine's settings and devices are not the copy's to set.
    mount --bind "$system/proc/sys" "$system/proc/sys"
    mount -o remount,bind,ro "$system/proc/sys"
    mount -t sysfs -o ro sysfs "$system/sys"
    mount -t cgroup2 cgroup2 "$system/sys/fs/cgroup"
    mount -t tmpfs tmpfs "$system/run"
    mount -t tmpfs tmpfs "$system/dev"
    for device in null zero full random urandom tty; do
        touch "$system/dev/$device"
        mount --bind "/dev/$device" "$system/dev/$device"
    done
    mkdir "$system/dev/pts" "$system/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$system/dev/pts"
    ln -s pts/ptmx "$system/dev/ptmx"
    mkdir "$system/run/result"
    # Not where they are: the system may put another folder over /tmp.
    cp "$SELF" "$system/run/probe"
    cp "$(dirname "$SELF")/common.sh" "$README" "$system/run"
    cp "$3" "$system/run/package.deb"
    cp "$4" "$system/run/fake"
    mount --bind "$2" "$system/run/result"
    # Nothing of this machine starts but the probe and what the service needs.
    rm -rf "$system"/etc/systemd/system/*.wants
    # Images for containers forbid packages to start services.
    rm -f "$system/usr/sbin/policy-rc.d"
    cat >"$system/etc/systemd/system/probe.service" <<'END'
[Unit]
DefaultDependencies=no
After=dbus.socket
[Service]
Type=oneshot
Environment=README=/run/README.md
ExecStart=/run/probe --probe /run/package.deb /run/fake
ExecStopPost=/bin/systemctl --force exit
StandardOutput=file:/run/result/output
StandardError=inherit
END
    cat >"$system/etc/systemd/system/probe.target" <<'END'
[Unit]
DefaultDependencies=no
Wants=probe.service dbus.socket
END
    export container=other
    cd "$system"
    mkdir run/old
    pivot_root . run/old
    exec chroot . /bin/sh -c 'umount -l /run/old && mount --make-rshared / && exec "$@"' init /lib/systemd/systemd --system --unit=probe.target
}

SELF=$(realpath "$0")
case $1 in
--probe) probe "$2" "$3" ;;
--boot) boot "$2" "$3" "$4" "$5" ;;
*)
    folder=$(mktemp --directory)
    trap 'rm -r "$folder/result" && rm -rf --one-file-system "$folder"' EXIT
    mkdir "$folder/root" "$folder/result"
    touch "$folder/result/output"
    timeout 180 unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup \
        "$SELF" --boot "$folder/root" "$folder/result" "$(realpath "$1")" "$(realpath "$2")" \
        >"$folder/log" 2>&1 || true
    if [ ! -s "$folder/result/output" ]; then
        cat "$folder/log"
        echo 'NOT RUN, since no systemd can be booted here (root, overlayfs, cgroup2): the unit'
        exit 0
    fi
    cat "$folder/result/output"
    [ -e "$folder/result/status" ]
    ;;
esac

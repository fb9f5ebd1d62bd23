#!/usr/bin/env bash
# The container images: built by buildah from the archives in dist/, their configuration compared
# with what it must be, and the binary in them run, for this machine as a container that reads its
# key as the unprivileged user of the image. Arguments: the version, the fake Things Stack's
# program. Needs root and buildah; says so where one is missing.
set -euo pipefail

. "$(dirname "$(realpath "$0")")/common.sh"
readonly PORT=9718
version=$1 fake=$2
declare -A emulator=([arm64]="qemu-aarch64-static -cpu cortex-a53" [armv7]="qemu-arm-static -cpu cortex-a7"
    [armv6]="qemu-arm-static -cpu arm1176")

not_run() {
    echo "NOT RUN, since $1: the container images"
    exit 0
}

command -v buildah >/dev/null || not_run 'buildah is missing'
[ "$(id -u)" = 0 ] || not_run 'it needs root'
folder=$(mktemp -d)
export BUILDAH_ISOLATION=chroot
# Nothing of this machine's own images is touched.
buildah=(buildah --storage-driver vfs --root "$folder/root" --runroot "$folder/run")
"${buildah[@]}" info >/dev/null 2>"$folder/log" || not_run "buildah does not work here ($(tail -n 1 "$folder/log"))"
pids=()
finish() {
    [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
    "${buildah[@]}" rm --all >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap finish EXIT

# What buildah prints of the image, in the form of the OCI's configuration.
config_is() {
    python3 - "$1" "$2" "$(sed -n 's/^repository *= *"\(.*\)"/\1/p' Cargo.toml)" 3<"$folder/config" <<'END'
import json, os, sys
arch, version, repository = sys.argv[1:]
image = json.load(os.fdopen(3))["OCIv1"]
labels = dict(image["config"].get("Labels") or {})
prefix = "org.opencontainers.image."
for changing in ("created", "revision"):
    assert labels.pop(prefix + changing), changing
labels.pop("io.buildah.version")
wanted = {
    prefix + "title": "ttn-gateway-exporter",
    prefix + "description": "Prometheus exporter for LoRaWAN gateways on The Things Stack",
    prefix + "licenses": "MIT",
    prefix + "version": version,
}
if repository:
    wanted[prefix + "source"] = repository
platform = {"amd64": ("amd64", ""), "arm64": ("arm64", ""), "armv7": ("arm", "v7"), "armv6": ("arm", "v6")}
variant = image.get("variant", "") if platform[arch][1] else ""
found = {
    "platform": (image["os"], image["architecture"], variant),
    "entry point": image["config"].get("Entrypoint"),
    "command": image["config"].get("Cmd"),
    "user": image["config"].get("User"),
    "ports": sorted(image["config"].get("ExposedPorts") or {}),
    "labels": labels,
    "layers": len(image["rootfs"]["diff_ids"]),
}
expected = {
    "platform": ("linux", *platform[arch]),
    "entry point": ["/ttn-gateway-exporter"],
    "command": None,
    "user": "65534:65534",
    "ports": ["9714/tcp"],
    "labels": wanted,
    "layers": 1,
}
for name in expected:
    assert found[name] == expected[name], (name, found[name], expected[name])
END
}

starts() { timeout 20 ${1:+$1} "$2" --version | grep -q "^$NAME $version"; }

# `docker` for README's block, as far as buildah has the same: `build` builds, `run` runs the
# container once with its settings, files and image, beside a fake on loopback.
readonly SHIMS=$folder/shims
shim sudo <<<'#!/bin/sh
exec "$@"'
shim docker <<END
#!/bin/bash
set -euo pipefail
command=\$1 options=()
shift
[ "\$command" = run ] || exec ${buildah[*]} build --quiet "\$@"
while [ \$# -gt 1 ]; do
    case \$1 in
    --env | --volume) options+=("\$1" "\$2"); shift 2 ;;
    --detach | --read-only) shift ;;
    --name | --restart | --cap-drop | --publish) shift 2 ;;
    *) echo "README's docker has an option that this test does not know: \$1" >&2; exit 1 ;;
    esac
done
container=\$(${buildah[*]} from --quiet --pull-never "\$1")
exec timeout 60 ${buildah[*]} run "\${options[@]}" --env "TTN_SERVER=http://127.0.0.1:$PORT" \
    "\$container" -- /$NAME --once
END

# Runs README's block with the key that is pasted; prints the metrics.
once() {
    local work=$folder/work
    rm -rf "$work"
    mkdir "$work"
    cp "dist/$NAME-$version-linux-amd64.tar.gz" "$work"
    (cd "$work" && readme_block 'docker build' | as_written "$folder/key" "$1" 2>"$folder/log")
}
reads_the_key() { once '' >"$folder/metrics"; grep -q '^ttn_exporter_gateways.*connected.* [1-9]' "$folder/metrics"; }
cannot_read_the_key() { ! once 's/-o 65534/-o 0/' >/dev/null && grep -qi 'permission denied' "$folder/log"; }

archs=()
for arch in amd64 arm64 armv7 armv6; do
    [ ! -e "dist/$NAME-$version-linux-$arch.tar.gz" ] || archs+=("$arch")
done
IMAGE_TOOL="${buildah[*]}" src/package/image.sh "$version" "${archs[@]}"

for arch in "${archs[@]}"; do
    "${buildah[@]}" inspect --type image "$NAME:$version-$arch" >"$folder/config"
    check "$arch image: platform, entry point, user, port and labels" config_is "$arch" "$version"
    container=$("${buildah[@]}" from --quiet --pull-never "$NAME:$version-$arch" 2>/dev/null)
    root=$("${buildah[@]}" mount "$container")
    check "$arch image: the program is all that is in it" test "$(cd "$root" && find . -type f)" = "./$NAME"
    check "$arch image: it is the released program" cmp -s "$root/$NAME" "dist/$NAME-$version-linux-$arch"
    if [ "$arch" = amd64 ] || command -v "${emulator[$arch]%% *}" >/dev/null; then
        check "$arch image: the program starts" starts "${emulator[$arch]:-}" "$root/$NAME"
    fi
done

if [ "$(uname -m)" = x86_64 ] && [ -e "dist/$NAME-$version-linux-amd64.tar.gz" ]; then
    start_fake "$fake" "127.0.0.1:$PORT" "$folder/key"
    pids+=($!)
    check 'a container reads the key file of its user' reads_the_key
    check "a container cannot read root's key file, and says so" cannot_read_the_key
fi

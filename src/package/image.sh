#!/usr/bin/env bash
# Builds the container images from the archives in dist/, as their README says: the folder that an
# archive unpacks to is all that an image is built from, and no other image is fetched. Arguments:
# the version, and the names of the targets (amd64 ...). One image for each, NAME:VERSION-TARGET;
# the one for this machine is called NAME too. IMAGE_TOOL is the program to use, with options of
# its own; without it docker, buildah or podman, whichever works first.
set -euo pipefail

readonly NAME=ttn-gateway-exporter
# No associative arrays: the bash of macOS has none.
platform() {
    case $1 in
    armv7) echo linux/arm/v7 ;;
    armv6) echo linux/arm/v6 ;;
    *) echo "linux/$1" ;;
    esac
}

this_machine() {
    case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64 | arm64) echo arm64 ;;
    armv7l) echo armv7 ;;
    armv6l) echo armv6 ;;
    esac
}

# Words, not one name: "buildah --storage-driver vfs".
find_tool() {
    local tool
    for tool in docker buildah podman; do
        # A client whose server does not run is of no use.
        if command -v "$tool" >/dev/null && "$tool" info >/dev/null 2>&1; then
            echo "$tool"
            return
        fi
    done
    echo "make image needs docker, podman or buildah, one that works (Debian: apt install buildah)" >&2
    return 1
}

# Buildah 1.28 (Debian 12) writes v7 for every 32-bit ARM, and a Pi Zero would refuse that.
set_armv6() {
    local container
    container=$("${tool[@]}" from --quiet --pull-never --platform linux/arm/v7 "$1" 2>/dev/null)
    "${tool[@]}" config --variant v6 "$container"
    "${tool[@]}" commit --quiet --squash --rm --timestamp "$2" "$container" "$1" >"$folder/id"
}

version=$1
shift
read -r -a tool <<<"${IMAGE_TOOL:-$(find_tool)}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for arch in "$@"; do
    unpacked=$folder/$NAME-$version-linux-$arch
    tar -x -z -f "dist/${unpacked##*/}.tar.gz" -C "$folder"
    tags=(--tag "$NAME:$version-$arch")
    [ "$(this_machine)" != "$arch" ] || tags+=(--tag "$NAME")
    # docker takes the time of the layers from the variable, the others from the option.
    epoch=$(python3 -c 'import os, sys; print(int(os.stat(sys.argv[1]).st_mtime))' "$unpacked/Dockerfile")
    times=()
    [ "${tool[0]##*/}" = docker ] || times=(--timestamp "$epoch")
    SOURCE_DATE_EPOCH=$epoch "${tool[@]}" build --quiet --platform "$(platform "$arch")" \
        ${times[@]+"${times[@]}"} "${tags[@]}" "$unpacked" >"$folder/id" || { cat "$folder/id"; exit 1; }
    if [ "$arch" = armv6 ]; then
        case ${tool[0]##*/} in
        buildah) set_armv6 "$NAME:$version-$arch" "$epoch" ;;
        podman) echo 'Podman 4.3 (Debian 12) labels this image arm/v7; build it with docker or buildah.' ;;
        esac
    fi
    echo "$NAME:$version-$arch  $(platform "$arch")  $(tail -n 1 "$folder/id")"
done

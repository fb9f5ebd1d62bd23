#!/bin/sh
# Says what a release build lacks on this machine and how to get it, then fetches what belongs to
# the user alone: the pinned Rust toolchain, by rustup. Argument: that toolchain's version.
set -eu

toolchain=$1
missing=0

# lacking WHAT DEBIAN FEDORA MACOS
lacking() {
    missing=1
    printf 'make dist needs %s.\n  Debian: %s\n  Fedora: %s\n  macOS:  %s\n' "$@" >&2
}

if ! command -v rustup >/dev/null; then
    lacking 'rustup, the installer of Rust (a distribution'"'"'s own cargo has no pinned versions)' \
        'https://rustup.rs (Debian 13: apt install rustup)' 'dnf install rustup && rustup-init' \
        'brew install rustup && rustup-init'
fi
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    lacking 'Python 3 with its module venv' 'apt install python3-venv' 'dnf install python3' \
        'brew install python3'
fi
# The build programs of the crates run on this machine, so its own linker is needed too.
if ! command -v cc >/dev/null; then
    lacking 'a C compiler' 'apt install gcc libc6-dev' 'dnf install gcc' 'xcode-select --install'
fi
[ "$missing" -eq 0 ] || exit 1

if ! RUSTUP_TOOLCHAIN=$toolchain rustc --version >/dev/null 2>&1 ||
    ! rustup component list --toolchain "$toolchain" --installed | grep -q '^rust-src'; then
    echo "Rust $toolchain and its standard library's source are missing: rustup gets them."
    rustup toolchain install "$toolchain" --profile minimal --component rust-src --no-self-update
fi

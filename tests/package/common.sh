# What the scripts of this folder share; they source it.
readonly NAME=ttn-gateway-exporter
readonly README=${README:-$(dirname "$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")")/README.md}

fail() {
    echo "FAILED  $*" >&2
    exit 1
}

# check WHAT COMMAND...
check() {
    local what=$1
    shift
    "$@" || fail "$what"
    echo "ok      $what"
}

# Waits up to 20 s for a command to succeed.
soon() {
    for _ in {1..100}; do
        "$@" && return
        sleep 0.2
    done
    return 1
}

# start_fake PROGRAM ADDRESS:PORT FILE: FILE gets a key that it knows. Its process is $!.
start_fake() {
    "$1" --listen "$2" >"$3.said" &
    soon grep -q NNSXS "$3.said"
    grep -o -m 1 'NNSXS[A-Z.]*' "$3.said" >"$3"
}

# Prints the block of code in README that has MARKER; tests/it/readme.rs finds the calls.
readme_block() {
    awk -v marker="$1" '
        /^```/ { if (inside && index(block, marker)) printf "%s", block; inside = !inside; block = ""; next }
        inside { block = block $0 "\n" }
    ' "$README"
}

# as_written KEY [SED-EXPRESSION] <BLOCK: runs a block of README; KEY is the file of the key that
# is pasted where it asks for one. The programs in $SHIMS replace those that are not here.
as_written() {
    local block
    block=$(sed -e "${2:-}")
    [ -n "$block" ] || fail 'README has no such block'
    PATH=$SHIMS:$PATH bash -euo pipefail -c "$block" <"$1"
}

# shim PROGRAM <SCRIPT
shim() {
    install -D -m 0755 /dev/stdin "$SHIMS/$1"
}

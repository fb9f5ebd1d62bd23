#!/usr/bin/env bash
# What must hold for a released binary before anything is tried with it: it needs nothing of the
# machine, it is for the right processor, it is small enough, it knows no path of its builder.
# Arguments: the binary, the name of its target (amd64 ...), the emulator to run it with (or "").
set -euo pipefail

binary=$1 arch=$2 runner=$3
# In bytes: 5 % above version 1.0.0.
declare -A most=([amd64]=2255173 [arm64]=1982786 [armv7]=1723545 [armv6]=1752534)
declare -A machine=([amd64]=X86-64 [arm64]=AArch64 [armv7]='ARM' [armv6]='ARM')
declare -A cpu=([armv7]=v7 [armv6]=v6)
failed=0

# check WHAT COMMAND...
check() {
    local what=$1
    shift
    if "$@"; then echo "ok      $arch $what"; else
        echo "FAILED  $arch $what" >&2
        failed=1
    fi
}

absent() { ! grep -q -- "$1" <<<"$2"; }
present() { grep -qE -- "$1" <<<"$2"; }
at_most() { [ "$1" -le "$2" ]; }
version() { timeout 20 $runner "$binary" --version | grep -q '^ttn-gateway-exporter [0-9]'; }

program_headers=$(readelf --wide --program-headers "$binary")
check 'has no interpreter (PT_INTERP)' absent INTERP "$program_headers"
check 'needs no library (NEEDED)' absent NEEDED "$(readelf --wide --dynamic "$binary")"
check 'has no stack that can be executed' absent 'GNU_STACK.*RWE' "$program_headers"
check 'has no segment that can be written and executed' absent 'LOAD .*RWE' "$program_headers"
check "is for ${machine[$arch]}" present "Machine: .*${machine[$arch]}" "$(readelf --file-header "$binary")"
if [ -n "${cpu[$arch]:-}" ]; then
    attributes=$(readelf --arch-specific "$binary")
    check "is for ${cpu[$arch]} (Tag_CPU_arch)" present "Tag_CPU_arch: ${cpu[$arch]}(KZ)?$" "$attributes"
    check 'passes floats in registers (hard float)' present 'Tag_ABI_VFP_args: VFP registers' "$attributes"
fi
check 'is stripped' absent '\.symtab' "$(readelf --wide --section-headers "$binary")"
size=$(wc -c <"$binary")
check "has $size bytes, at most ${most[$arch]}" at_most "$size" "${most[$arch]}"
text=$(strings -n 6 "$binary")
check 'holds no path of the machine that built it' absent "${HOME}/" "$text"
check 'holds no path of this checkout' absent "$(cd "$(dirname "$0")/../.." && pwd)" "$text"
check "starts${runner:+ under $runner}" version
exit "$failed"

#!/usr/bin/env bash
# Prints what the exporter weighs: bytes of each release in dist/, the crates, the largest parts
# of the program where cargo-bloat is installed, resident memory when idle. Argument: the version.
set -euo pipefail

name=ttn-gateway-exporter
echo "Bytes of the stripped static binary (and its .tar.gz)"
for binary in dist/"$name-$1"-linux-*; do
    case $binary in *.tar.gz) continue ;; esac
    printf '  %-6s %8d  (%d)\n' "${binary##*-}" "$(wc -c <"$binary")" "$(wc -c <"$binary.tar.gz")"
done

crates=$(cargo tree --locked --edges normal --prefix none --format '{p}' | cut -d ' ' -f 1-2 | sort -u)
echo "Crates: $(wc -l <<<"$crates"), this one included (at most 40)"
echo "Crates in two versions: $(cut -d ' ' -f 1 <<<"$crates" | uniq -d | paste -s -d ' ' | grep . || echo none)"

if cargo bloat --version >/dev/null 2>&1; then
    cargo bloat --release --crates -n 12 --config 'profile.release.strip="none"'
else
    echo "Bytes by crate: not shown, since cargo-bloat is missing (cargo install cargo-bloat)"
fi

log=$(mktemp)
TTN_API_KEY=none TTN_SERVER=http://127.0.0.1:9 \
    "dist/$name-$1-linux-amd64" --listen 127.0.0.1:0 2>"$log" &
pid=$!
trap 'kill $pid 2>/dev/null || true; rm -f "$log"' EXIT
sleep 1
echo "Memory of the amd64 binary, one second after its start"
if ! awk '/^(VmRSS|VmHWM|VmSize|Threads)/ { print "  " $0 }' "/proc/$pid/status" 2>/dev/null; then
    echo "Resident memory: not shown, the exporter ended:" && cat "$log"
fi

#!/usr/bin/env bash
# Runs the fake Things Stack and the exporter side by side until Ctrl-C, or until one of them ends;
# then it ends the other. Arguments: the fake's program, the exporter's. TTN_LISTEN is where the
# exporter listens, FAKE_LISTEN where the fake does.
set -u

fake=$1 exporter=$2
listen=${TTN_LISTEN:-:9714}
fake_address=${FAKE_LISTEN:-127.0.0.1:9715}
fake_says=$(mktemp)
pids=()

finish() {
    trap '' INT TERM HUP
    [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null
    wait
    rm -f "$fake_says"
    exit "$1"
}
trap 'echo; finish 0' INT TERM HUP

# The fake says when it listens, and which key it knows.
"$fake" --listen "$fake_address" >"$fake_says" &
pids+=($!)
key=
for _ in {1..100}; do
    key=$(grep -o -m 1 'NNSXS[A-Z.]*' "$fake_says") && break
    kill -0 "${pids[0]}" 2>/dev/null || finish 1
    sleep 0.1
done

env -u TTN_API_KEY_FILE TTN_API_KEY="$key" TTN_SERVER="http://$fake_address" \
    "$exporter" --listen "$listen" &
pids+=($!)
sleep 0.3

port=${listen##*:}
cat <<END

  Status page   http://localhost:$port/
  Metrics       http://localhost:$port/metrics     (curl -s localhost:$port/metrics | grep ttn_)

  The gateways are made up by a fake Things Stack on $fake_address. Ctrl-C ends both.

END

# Not `wait -n`, which the bash of macOS does not have.
while kill -0 "${pids[0]}" 2>/dev/null && kill -0 "${pids[1]}" 2>/dev/null; do
    sleep 1 &
    wait $!
done
echo "make demo: one of the two ended by itself, so the other one is ended too." >&2
finish 1

#!/bin/sh
# The last words of `make test`: which tests did not run, because a program is not installed.
set -u

# without PROGRAM DEBIAN-PACKAGE WHAT
without() {
    command -v "$1" >/dev/null && return
    echo "NOT RUN, since $1 is missing (Debian: apt install $2): $3."
}

without prometheus prometheus 'the exporter under a real Prometheus, and the alerts end to end'
without promtool prometheus 'the check of the metrics, the rules and their scenarios'
without amtool prometheus-alertmanager 'the check of the Alertmanager configuration in README'
without chromium chromium 'the status page in a real browser'
without chromedriver chromium-driver 'the status page in a real browser'
without python3 python3 'the changelog against the tag of a release'
# Elsewhere there is none to install.
[ "$(uname -s)" != Linux ] ||
    without systemd-analyze systemd 'the exposure of the systemd unit'

#!/usr/bin/env python3
"""Prints ttn-gateway-exporter@.service, the template unit, made from the unit.

systemd cannot derive one unit from another, and two files of 80 equal lines would differ one day.
An instance NAME takes its key, its token and its settings from /etc/ttn-gateway-exporter/NAME.key,
NAME.web-token and NAME.env.
"""

import pathlib

NAME = "ttn-gateway-exporter"
UNIT = pathlib.Path(__file__).resolve().parent.parent / "assets" / f"{NAME}.service"

HEAD = f"""\
# The exporter once for each API key or tenant, as a service of systemd 247 or newer. For an
# instance called home:
#   install -m 0600 /dev/stdin /etc/{NAME}/home.key   (paste the key, then Ctrl-D)
#   echo TTN_LISTEN=:9715 > /etc/{NAME}/home.env
#   systemctl enable --now {NAME}@home
# Each instance needs a port of its own. The key and the token are read when it starts: a new one
# needs `systemctl restart {NAME}@home`.
#
# `--web-token-file` reads a credential:
#   install -m 0600 /dev/stdin /etc/{NAME}/home.web-token
#   TTN_WEB_TOKEN_FILE=/run/credentials/{NAME}@home.service/web-token   (in home.env)
"""

# What differs from the unit; each must be there exactly as often as it says.
CHANGES = [
    (f"/etc/{NAME}/api-key", f"/etc/{NAME}/%i.key", 2),
    (f"/etc/{NAME}/web-token", f"/etc/{NAME}/%i.web-token", 1),
    (f"/etc/default/{NAME}", f"/etc/{NAME}/%i.env", 1),
    ("on The Things Stack\n", "on The Things Stack (%i)\n", 1),
]


def template_unit():
    """The text of the template unit."""
    _, section, rest = UNIT.read_text().partition("[Unit]\n")
    text = section + rest
    for old, new, count in CHANGES:
        if text.count(old) != count:
            raise SystemExit(f"{UNIT.name} has {old!r} {text.count(old)} times, not {count}")
        text = text.replace(old, new)
    return HEAD + text


if __name__ == "__main__":
    print(template_unit(), end="")

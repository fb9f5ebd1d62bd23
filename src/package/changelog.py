#!/usr/bin/env python3
"""Reads CHANGELOG.md: the Debian changelog, and what a release tag must agree with.

    changelog.py check TAG    ends with 1 unless TAG is `v` and the version of Cargo.toml, and the
                              changelog has a dated section for it; prints that section
    changelog.py debian       prints the Debian changelog
"""

import datetime
import pathlib
import re
import sys
import textwrap

HERE = pathlib.Path(__file__).resolve().parent
CHANGELOG = HERE / "CHANGELOG.md"
CARGO = HERE.parent.parent / "Cargo.toml"
PACKAGE = "ttn-gateway-exporter"
MAINTAINER = "The ttn-gateway-exporter authors <ttn-gateway-exporter@example.org>"
# Of the package, beside the version of the program.
DEBIAN_REVISION = 1


def cargo_field(name):
    """A field of [package] in Cargo.toml, which comes first there; "" when it is missing."""
    package = CARGO.read_text().partition("\n[")[0]
    found = re.search(rf'^{name} *= *"([^"]*)"', package, re.MULTILINE)
    return found.group(1) if found else ""


def sections(text):
    """(version, date, body) for each `## VERSION - YYYY-MM-DD`, newest first."""
    found = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        if title == "Unreleased":
            continue
        match = re.fullmatch(r"(\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)", title)
        if not match:
            raise SystemExit(f"CHANGELOG.md: `## {title}` is not `## VERSION - YYYY-MM-DD`")
        if not body.strip():
            raise SystemExit(f"CHANGELOG.md: nothing under `## {title}`")
        if not body.strip().startswith("- "):
            raise SystemExit(f"CHANGELOG.md: what is under `## {title}` is no list")
        day = datetime.date.fromisoformat(match.group(2))
        found.append((match.group(1), day, body.strip()))
    return found


def debian_version(version):
    """The version of the package. Refuses one that the changelog does not begin with."""
    newest = sections(CHANGELOG.read_text())[0][0]
    if newest != version:
        raise SystemExit(f"CHANGELOG.md is at {newest}, Cargo.toml at {version}")
    return f"{version}-{DEBIAN_REVISION}"


def debian_item(text):
    """The lines of one item; lintian allows 80 characters."""
    return textwrap.wrap(text, 80, initial_indent="  * ", subsequent_indent="    ", break_on_hyphens=False)


def debian():
    """The Debian changelog; every entry is dated noon."""
    entries = []
    for version, day, body in sections(CHANGELOG.read_text()):
        items = [" ".join(item.split()) for item in re.split(r"^- ", body, flags=re.MULTILINE)[1:]]
        lines = [line for item in items for line in debian_item(item)]
        date = f"{day:%a, %d %b %Y} 12:00:00 +0000"
        entries.append(
            f"{PACKAGE} ({version}-{DEBIAN_REVISION}) stable; urgency=medium\n\n"
            + "\n".join(lines)
            + f"\n\n -- {MAINTAINER}  {date}\n"
        )
    return "\n".join(entries)


def check(tag):
    """The section of the release that the tag names, or the end of the program."""
    version = cargo_field("version")
    if tag != f"v{version}":
        raise SystemExit(f"the tag is {tag}, the version in Cargo.toml {version}")
    bodies = {found: body for found, _, body in sections(CHANGELOG.read_text())}
    if version not in bodies:
        raise SystemExit(f"CHANGELOG.md has no section `## {version} - YYYY-MM-DD`")
    return bodies[version] + "\n"


def main():
    arguments = sys.argv[1:]
    if arguments == ["debian"]:
        print(debian(), end="")
    elif len(arguments) == 2 and arguments[0] == "check":
        print(check(arguments[1]), end="")
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()

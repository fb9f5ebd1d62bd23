#!/usr/bin/env python3
"""Writes the bill of materials of a release: CycloneDX 1.6, made from `cargo tree`.

It names each crate that is compiled into the binary for any of the targets, with its checksum, its
licence and what it depends on, and the standard library. Crates that only build programs or tests
need are left out. Equal input gives equal bytes: entries are sorted, and the only time is --epoch.
"""

import argparse
import datetime
import json
import pathlib
import re
import subprocess

from changelog import cargo_field

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def tree(target):
    """(depth, name, version, licence, repository) of each line of `cargo tree` for one target.

    Not `cargo metadata`, which mixes in the features that tests alone switch on.
    """
    command = ["cargo", "tree", "--locked", "--edges=normal", "--no-dedupe", "--prefix=depth"]
    command += [f"--target={target}", "--format= {p}|{l}|{r}"]
    text = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in text.splitlines():
        depth, _, rest = line.partition(" ")
        package, licence, repository = rest.split("|")
        # Behind the version: `(proc-macro)`, or the folder of this crate.
        name, version = package.split(" ")[:2]
        yield int(depth), name, version.removeprefix("v"), licence, repository


def resolve(targets):
    """The crates by reference, and what each is compiled with; the first is the program."""
    crates, edges = {}, {}
    for target in targets:
        above = []
        for depth, *crate in tree(target):
            reference = f"pkg:cargo/{crate[0]}@{crate[1]}"
            crates[reference] = crate
            edges.setdefault(reference, set())
            above[depth:] = [reference]
            if depth:
                edges[above[depth - 1]].add(reference)
    return crates, edges


def checksums():
    """(name, version) -> the SHA-256 of the crate's file, from Cargo.lock."""
    lock = (ROOT / "Cargo.lock").read_text()
    entry = r'name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "(.+)"'
    return {(name, version): checksum for name, version, checksum in re.findall(entry, lock)}


def component(reference, crate, checksum):
    """One crate. `MIT/Apache-2.0` is how crates wrote `MIT OR Apache-2.0` before SPDX."""
    name, version, licence, repository = crate
    entry = {"type": "library", "bom-ref": reference, "name": name, "version": version}
    entry["purl"] = reference
    if licence:
        entry["licenses"] = [{"expression": licence.replace("/", " OR ")}]
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if repository:
        entry["externalReferences"] = [{"type": "vcs", "url": repository}]
    return entry


def standard_library(toolchain):
    return {
        "type": "library",
        "bom-ref": f"rust-std@{toolchain}",
        "name": "rust-std",
        "version": toolchain,
        "description": "The standard library of Rust, compiled from source with the program",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }


def bill(targets, toolchain, epoch):
    """The whole document, as plain data."""
    crates, edges = resolve(targets)
    sums = checksums()
    entries = {r: component(r, crates[r], sums.get(tuple(crates[r][:2]))) for r in sorted(crates)}
    root = next(iter(crates))
    program = {**entries.pop(root), "type": "application"}
    std = standard_library(toolchain)
    edges[root].add(std["bom-ref"])
    edges[std["bom-ref"]] = set()
    time = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": f"{time:%Y-%m-%dT%H:%M:%SZ}", "component": program},
        "components": [*entries.values(), std],
        "dependencies": [{"ref": r, "dependsOn": sorted(edges[r])} for r in sorted(edges)],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", required=True)
    parser.add_argument("--toolchain", required=True, help="version of Rust")
    parser.add_argument("--epoch", type=int, required=True, help="seconds since 1970")
    parser.add_argument("--dist", type=pathlib.Path, required=True)
    options = parser.parse_args()

    document = bill(options.targets, options.toolchain, options.epoch)
    options.dist.mkdir(exist_ok=True)
    name = f"ttn-gateway-exporter-{cargo_field('version')}.cdx.json"
    text = json.dumps(document, indent=1) + "\n"
    (options.dist / name).write_text(text)
    print(f"{len(text):>9}  {options.dist.name}/{name}")


if __name__ == "__main__":
    main()

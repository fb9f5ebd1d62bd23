#!/usr/bin/env python3
"""Checks the bill of materials against CycloneDX's own schema, and that it names what it must.

Needs the PyPI package cyclonedx-python-lib[json-validation]. Argument: the file.
"""

import json
import pathlib
import re
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

# What ships for certain; tests and build programs alone need the others.
EXPECTED = {"ureq", "rustls", "ring", "tiny_http", "serde_json", "webpki-roots", "rust-std"}
UNEXPECTED = {"rcgen", "cc", "regex"}
CHECKSUM = re.compile("[0-9a-f]{64}")

text = pathlib.Path(sys.argv[1]).read_text()
if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
    raise SystemExit(f"FAILED  the schema of CycloneDX 1.6: {error}")
bill = json.loads(text)
components = {entry["name"]: entry for entry in bill["components"]}
missing, extra = EXPECTED - components.keys(), UNEXPECTED & components.keys()
if missing or extra:
    raise SystemExit(f"FAILED  missing: {missing}, not shipped: {extra}")
for name, entry in components.items():
    sums = [hash_["content"] for hash_ in entry.get("hashes", [])]
    if name != "rust-std" and not (len(sums) == 1 and CHECKSUM.fullmatch(sums[0])):
        raise SystemExit(f"FAILED  {name} has no checksum")
    if not entry["licenses"]:
        raise SystemExit(f"FAILED  {name} has no licence")
print(f"ok      the bill of materials: CycloneDX 1.6, {len(components)} components")

#!/usr/bin/env python3
"""Packs one finished binary into dist/: the binary, a .tar.gz, a .deb, and SHA256SUMS over all.

The .tar.gz also holds what a container image is built from, and what Docker Compose needs to run
the exporter beside Prometheus and Grafana.

A .deb is three members in an ar archive, so it is written here by hand: the same bytes come out on
Debian, Fedora and macOS, with no dpkg, GNU tar or cargo-deb (69 crates) to install. Nothing of the
machine goes in: names are sorted, owners are root, every time is --epoch. Python's own gzip would
bring in the machine's zlib, and some systems have another that writes other bytes; so the libdeflate
of a pinned PyPI package compresses.
"""

import argparse
import datetime
import hashlib
import io
import pathlib
import tarfile

import deflate

from changelog import MAINTAINER, cargo_field, debian, debian_version
from template_unit import template_unit

NAME = "ttn-gateway-exporter"
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ASSETS = ROOT / "src/assets"
UNIT = ASSETS / f"{NAME}.service"
TEMPLATE_UNIT = f"{NAME}@.service"
# What Prometheus and Grafana are given in containers, beside the files in compose/.
COMPOSE_ASSETS = ["alerts.yml", "dashboard.json"]
# The ARMv6 binary runs on every 32-bit Pi; a second armhf package would have the same name.
DEBIAN_ARCHITECTURE = {"amd64": "amd64", "arm64": "arm64", "armv6": "armhf"}


def compress(data):
    """gzip as small as libdeflate makes it, without a name or a time."""
    return bytes(deflate.gzip_compress(data, 12))


def tar_gz(entries, epoch):
    """`entries`: path -> (mode, bytes), or (mode, None) for a folder. Sorted, owned by root."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(entries):
            mode, data = entries[path]
            info = tarfile.TarInfo(path)
            info.mode, info.mtime, info.uname, info.gname = mode, epoch, "root", "root"
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data or b""))
    return compress(packed.getvalue())


def with_folders(files):
    """Adds every parent folder of the paths in `files`, with mode 0755 where none is given."""
    entries = {"./" + path: entry for path, entry in files.items()}
    for path in list(entries):
        for parent in list(pathlib.PurePosixPath(path).parents)[:-1]:
            entries.setdefault(f"./{parent}", (0o755, None))
    return {"./": (0o755, None), **entries}


def ar(members, epoch):
    """The archive that a .deb is: 60 bytes of text before each member, padded to even lengths."""
    packed = b"!<arch>\n"
    for name, data in members:
        packed += f"{name:<16}{epoch:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        packed += data + b"\n" * (len(data) % 2)
    return packed


def address_line(field):
    """A line with the address of the project; empty while Cargo.toml has no `repository`."""
    repository = cargo_field("repository")
    return f"{field}: {repository}\n" if repository else ""


def deb_files(binary):
    """What the package installs."""
    doc = f"usr/share/doc/{NAME}"
    copyright_text = (HERE / "copyright").read_text().format(source=address_line("Source"))
    return {
        f"usr/bin/{NAME}": (0o755, binary),
        f"usr/lib/systemd/system/{NAME}.service": (0o644, UNIT.read_bytes()),
        f"usr/lib/systemd/system/{TEMPLATE_UNIT}": (0o644, template_unit().encode()),
        f"etc/default/{NAME}": (0o644, (HERE / "default").read_bytes()),
        # The place for the key: closed to all but root before there is one.
        f"etc/{NAME}": (0o700, None),
        f"usr/share/man/man1/{NAME}.1.gz": (0o644, compress((HERE / f"{NAME}.1").read_bytes())),
        f"{doc}/changelog.Debian.gz": (0o644, compress(debian().encode())),
        f"{doc}/copyright": (0o644, copyright_text.encode()),
        f"{doc}/README.md.gz": (0o644, compress((ROOT / "README.md").read_bytes())),
        f"usr/share/lintian/overrides/{NAME}": (0o644, (HERE / "lintian-overrides").read_bytes()),
    }


def deb_control(files, architecture, version):
    """What dpkg reads: the fields, the configuration files, the sums, the maintainer scripts."""
    contents = {path: data for path, (_, data) in files.items() if data is not None}
    kilobytes = sum(len(data) // 1024 + 1 for data in contents.values())
    fields = (HERE / "control").read_text().format(
        architecture=architecture,
        version=version,
        installed_size=kilobytes,
        maintainer=MAINTAINER,
        homepage=address_line("Homepage"),
    )
    sums = "".join(f"{hashlib.md5(contents[p]).hexdigest()}  {p}\n" for p in sorted(contents))
    control = {
        "./control": (0o644, fields.encode()),
        "./conffiles": (0o644, f"/etc/default/{NAME}\n".encode()),
        "./md5sums": (0o644, sums.encode()),
    }
    for script in ("postinst", "prerm", "postrm"):
        control[f"./{script}"] = (0o755, (HERE / script).read_bytes())
    return {"./": (0o755, None), **control}


def deb(binary, architecture, version, epoch):
    files = deb_files(binary)
    members = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", tar_gz(deb_control(files, architecture, version), epoch)),
        ("data.tar.gz", tar_gz(with_folders(files), epoch)),
    ]
    return ar(members, epoch)


def dockerfile(version, revision, epoch):
    """The Dockerfile, its labels filled in."""
    created = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    labels = {"version": version, "revision": revision, "created": f"{created:%Y-%m-%dT%H:%M:%SZ}"}
    if cargo_field("repository"):
        labels["source"] = cargo_field("repository")
    lines = "".join(f'LABEL org.opencontainers.image.{key}="{labels[key]}"\n' for key in labels)
    return (HERE / "Dockerfile").read_text() + lines


def archive(binary, folder, options):
    """The .tar.gz: all that is needed on a machine of any kind, in one folder."""
    files = {
        NAME: (0o755, binary),
        f"{NAME}.1": (0o644, (HERE / f"{NAME}.1").read_bytes()),
        UNIT.name: (0o644, UNIT.read_bytes()),
        TEMPLATE_UNIT: (0o644, template_unit().encode()),
        "README.md": (0o644, (ROOT / "README.md").read_bytes()),
        "CHANGELOG.md": (0o644, (HERE / "CHANGELOG.md").read_bytes()),
        "LICENSE": (0o644, (ROOT / "LICENSE").read_bytes()),
        "Dockerfile": (
            0o644,
            dockerfile(options.version, options.revision, options.epoch).encode(),
        ),
        ".dockerignore": (0o644, (HERE / "dockerignore").read_bytes()),
        "compose.yaml": (0o644, (HERE / "compose.yaml").read_bytes()),
    }
    compose = sorted((HERE / "compose").iterdir()) + [ASSETS / n for n in COMPOSE_ASSETS]
    files.update({f"compose/{path.name}": (0o644, path.read_bytes()) for path in compose})
    entries = {f"{folder}/{path}": entry for path, entry in files.items()}
    folders = {folder: (0o755, None), f"{folder}/compose": (0o755, None)}
    return tar_gz({**folders, **entries}, options.epoch)


def write_sums(dist):
    """SHA256SUMS over everything in `dist`, as `sha256sum --check` reads it."""
    files = sorted(p for p in dist.iterdir() if p.is_file() and p.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in files]
    (dist / "SHA256SUMS").write_text("".join(sums))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--arch", choices=["amd64", "arm64", "armv7", "armv6"], required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--revision", required=True)
    parser.add_argument("--epoch", type=int, required=True, help="seconds since 1970")
    parser.add_argument("--dist", type=pathlib.Path, required=True)
    options = parser.parse_args()

    options.dist.mkdir(exist_ok=True)
    binary = options.binary.read_bytes()
    name = f"{NAME}-{options.version}-linux-{options.arch}"
    made = {name: binary, f"{name}.tar.gz": archive(binary, name, options)}
    if options.arch in DEBIAN_ARCHITECTURE:
        architecture, version = DEBIAN_ARCHITECTURE[options.arch], debian_version(options.version)
        package = deb(binary, architecture, version, options.epoch)
        made[f"{NAME}_{version}_{architecture}.deb"] = package
    for file, data in made.items():
        # One that is running can be removed, but not written to.
        (options.dist / file).unlink(missing_ok=True)
        (options.dist / file).write_bytes(data)
        print(f"{len(data):>9}  {options.dist.name}/{file}")
    (options.dist / name).chmod(0o755)
    write_sums(options.dist)


if __name__ == "__main__":
    main()

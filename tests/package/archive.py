#!/usr/bin/env python3
"""Checks what an archive of dist/ holds for containers, as far as that goes without a network.

compose.yaml and what it mounts: every file that is named is in the archive, each service is reached
by the name and the port that it has, Prometheus's configuration passes promtool (where that is
installed), and Grafana finds the data source and the dashboard. Needs PyYAML. Argument: the archive.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

try:
    import yaml
except ImportError:
    print("NOT RUN, since PyYAML is missing (Debian: python3-yaml): the files for Docker Compose")
    sys.exit()

KEY = "api-key"


def check(what, holds):
    if not holds:
        raise SystemExit(f"FAILED  {what}")
    print(f"ok      {what}")


def mounts(service):
    """path in the container -> path here, for the files of the archive."""
    pairs = [volume.split(":") for volume in service.get("volumes", [])]
    return {pair[1]: pair[0] for pair in pairs if pair[0].startswith("./")}


def check_compose(folder, compose):
    services = compose["services"]
    named = [path for service in services.values() for path in mounts(service).values()]
    check("compose: every file that is mounted is there", all((folder / p).is_file() for p in named))
    # The key alone is the user's to make, and must not be there.
    secrets = {name: secret["file"] for name, secret in compose["secrets"].items()}
    check("compose: the key is a secret file", secrets == {KEY: f"./{KEY}"})
    check("compose: no key comes along", not (folder / KEY).exists())
    exporter = services["exporter"]
    check("compose: the exporter reads that secret", exporter["secrets"] == [KEY])
    key_file = exporter["environment"]["TTN_API_KEY_FILE"]
    check("compose: where it is mounted", key_file == f"/run/secrets/{KEY}")
    if shutil.which("docker-compose"):
        command = ["docker-compose", "--file", str(folder / "compose.yaml"), "config", "--quiet"]
        check("compose: docker-compose accepts it", subprocess.run(command, check=False).returncode == 0)
    else:
        print("NOT RUN, since docker-compose is missing: its check of compose.yaml")
    volumes = {v.split(":")[0] for s in services.values() for v in s.get("volumes", [])}
    volumes = {volume for volume in volumes if not volume.startswith("./")}
    check("compose: every volume is declared", volumes == set(compose["volumes"]))
    ports = [port for service in services.values() for port in service["ports"]]
    check("compose: this machine alone reaches them", all(p.startswith("127.0.0.1:") for p in ports))


def check_image(folder):
    dockerfile = (folder / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1] for line in dockerfile if line.startswith("COPY ")]
    check("image: every file that is copied is there", all((folder / p).is_file() for p in copied))
    ignored = (folder / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    check("image: and nothing else is sent to the builder", "*" in ignored and allowed == copied)


def check_prometheus(folder, compose):
    config = folder / "compose/prometheus.yml"
    jobs = yaml.safe_load(config.read_text())["scrape_configs"]
    scrape = yaml.safe_load(pathlib.Path("src/assets/scrape-config.yml").read_text())
    (job,), (printed,) = jobs, scrape["scrape_configs"]
    different = {field for field in job.keys() | printed.keys() if job.get(field) != printed.get(field)}
    check("prometheus: the job is the one that --print writes", different <= {"static_configs"})
    host, port = job["static_configs"][0]["targets"][0].split(":")
    exporter = compose["services"][host]
    check("prometheus: it scrapes the exporter's port", exporter["ports"][0].endswith(f":{port}"))
    if shutil.which("promtool"):
        command = ["promtool", "check", "config", str(config)]
        check("prometheus: promtool accepts it", subprocess.run(command, check=False).returncode == 0)
    else:
        print("NOT RUN, since promtool is missing: the configuration of Prometheus")


def check_grafana(folder, compose):
    files = mounts(compose["services"]["grafana"])
    provisioning = "/etc/grafana/provisioning"
    data = {path: yaml.safe_load((folder / files[path]).read_text()) for path in files if path.endswith(".yaml")}
    (source,) = data[f"{provisioning}/datasources/prometheus.yaml"]["datasources"]
    host, port = source["url"].removeprefix("http://").split(":")
    check("grafana: its data source is Prometheus", compose["services"][host]["ports"][0].endswith(f":{port}"))
    (provider,) = data[f"{provisioning}/dashboards/gateways.yaml"]["providers"]
    dashboards = [path for path in files if path.startswith(provider["options"]["path"] + "/")]
    check("grafana: one dashboard is where it looks", len(dashboards) == 1)
    dashboard = json.loads((folder / files[dashboards[0]]).read_text())
    # What is imported by hand may ask for a data source; what is provisioned cannot.
    check("grafana: the dashboard asks nobody anything", "__inputs" not in dashboard)


def main():
    with tempfile.TemporaryDirectory() as temporary, tarfile.open(sys.argv[1]) as archive:
        archive.extractall(temporary)
        (folder,) = pathlib.Path(temporary).iterdir()
        compose = yaml.safe_load((folder / "compose.yaml").read_text())
        check_compose(folder, compose)
        check_image(folder)
        check_prometheus(folder, compose)
        check_grafana(folder, compose)


if __name__ == "__main__":
    main()

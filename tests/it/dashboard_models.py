"""Reads the dashboard with the typed models of grafana-foundation-sdk and writes it again: a field
that Grafana's model does not know is lost on the way, and named here.

Argument: the dashboard. Fields of Grafana that these models leave out are listed below."""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


# The first three belong to the annotations of the Prometheus data source, the last one to a state
# timeline of Grafana 11; an older one shows all rows.
NOT_IN_THE_MODELS = ("titleFormat", "textFormat", "step", "perPage")


def lost(before, after, path):
    """The paths of what is in `before` and not in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            if name not in after:
                # What is empty or false may be left out.
                if value not in (None, "", False, [], {}, 0) and name not in NOT_IN_THE_MODELS:
                    yield f"{path}.{name}"
            else:
                yield from lost(value, after[name], f"{path}.{name}")
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield path
        for at, (one, other) in enumerate(zip(before, after)):
            yield from lost(one, other, f"{path}[{at}]")
    elif before != after:
        yield f"{path}: {before!r} became {after!r}"


register_default_plugins()
with open(sys.argv[1], encoding="utf-8") as file:
    dashboard = json.load(file)
again = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
paths = list(lost(dashboard, again, "dashboard"))
print("\n".join(paths))
sys.exit(bool(paths))

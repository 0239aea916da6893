"""What the dashboard asks Prometheus for is what the services export."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (`[^|]*`) \| ([^|]*) \| ([^|]*) \|", re.MULTILINE)
SUFFIXES = {"s": "_seconds", "By": "_bytes"}
NAME = re.compile(r"\b(?:gen_ai|moesaic)_\w+")


def exported() -> set[str]:
    """The documented metrics by their names on a Prometheus endpoint; other documents hold them to
    the code.
    """
    _, _, metrics = (
        (ROOT / "docs/observability.md").read_text(encoding="utf-8").partition("## Metrics")
    )
    names = set()
    for documented, unit, kind in ROW.findall(metrics):
        for name in documented.split("`")[1::2]:
            base = name.replace(".", "_") + SUFFIXES.get(unit.strip(), "")
            endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(
                kind.strip(), [""]
            )
            names |= {base + ending for ending in endings}
    return names


def test_every_metric_that_the_dashboard_shows_exists() -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/moesaic.json").read_text(encoding="utf-8"))
    asked = {
        name
        for panel in dashboard["panels"]
        for one in panel.get("targets", ())
        for name in NAME.findall(one["expr"])
    }
    assert len(asked) > 20
    assert asked - exported() == set()

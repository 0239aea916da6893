"""What the dashboard and the alerts ask Prometheus for is what the services export."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (`[^|]*`) \| ([^|]*) \| ([^|]*) \| [^|]* \|([^|]*)\|$", re.MULTILINE)
SUFFIXES = {"s": "_seconds", "By": "_bytes"}
# In a cell of attributes: the first one, and those that are followed by what they can be.
FIRST, VALUED = re.compile(r"^\s*`([\w.]+)`"), re.compile(r"`([\w.]+)`[^`,:]*:")
# A metric with what its labels have to be, and labels that a sum keeps.
SELECTED = re.compile(r"\b((?:gen_ai|moesaic)_\w+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\bby \(([^)]*)\)")
# Those that Prometheus adds to all, or buckets have.
EVERYWHERE = {"instance", "job", "le"}


def exported() -> dict[str, set[str]]:
    """The documented metrics by their names on a Prometheus endpoint, with their labels; other
    tests hold the document to the code.
    """
    _, _, metrics = (
        (ROOT / "docs/observability.md").read_text(encoding="utf-8").partition("## Metrics")
    )
    names: dict[str, set[str]] = {}
    above: set[str] = set()
    for documented, unit, kind, attributes in ROW.findall(metrics):
        labels = above if "as above" in attributes else labels_of(attributes)
        above = labels
        for name in documented.split("`")[1::2]:
            base = name.replace(".", "_") + SUFFIXES.get(unit.strip(), "")
            endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(
                kind.strip(), [""]
            )
            names |= {base + ending: labels for ending in endings}
    return names


def labels_of(attributes: str) -> set[str]:
    named = FIRST.findall(attributes) + VALUED.findall(attributes)
    if ":" not in attributes:
        named += re.findall(r"`([\w.]+)`", attributes)
    return {name.replace(".", "_") for name in named}


def dashboard() -> Any:
    return json.loads((ROOT / "deploy/grafana/moesaic.json").read_text(encoding="utf-8"))


def panels() -> list[Any]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def alerts() -> dict[str, str]:
    """What each alert says, from its name on."""
    text = (ROOT / "deploy/alerts.yaml").read_text(encoding="utf-8")
    return {part.split("\n", 1)[0]: part for part in text.split("- alert: ")[1:]}


def queries() -> Iterator[str]:
    for panel in panels():
        yield from (one["expr"] for one in panel["targets"])
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.findall(r"[\w.]+", variable["definition"])[1:]
            yield f"sum by ({label}) ({metric})"
    for rule in alerts().values():
        yield " ".join(rule.partition("expr:")[2].partition(" for:")[0].split())


def asked() -> Iterator[tuple[str, set[str]]]:
    """Each metric of each query, and the labels that are asked for there."""
    for query in queries():
        kept = {name.strip() for group in GROUPED.findall(query) for name in group.split(",")}
        for name, selected in SELECTED.findall(GROUPED.sub("", query)):
            yield name, kept | set(re.findall(r"(\w+)\s*[=!]", selected))


def test_every_metric_and_label_that_is_asked_for_exists() -> None:
    known = exported()
    assert len({name for name, _ in asked()}) > 30
    unknown = {name for name, _ in asked()} - known.keys()
    assert unknown == set()
    wrong = [(name, labels - known[name] - EVERYWHERE) for name, labels in asked()]
    assert [(name, labels) for name, labels in wrong if labels] == []


def test_a_label_that_is_not_there_would_be_found() -> None:
    assert exported()["moesaic_router_retries_total"] == {"service", "reason"}
    assert exported()["gen_ai_server_time_to_first_token_seconds_bucket"] == {
        *("gen_ai_operation_name", "gen_ai_request_model", "error_type"),
    }


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_every_panel_says_what_it_shows_and_in_what(panel: Any) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] != "short"


def test_the_dashboard_can_be_narrowed_and_leads_to_traces() -> None:
    variables = {one["name"] for one in dashboard()["templating"]["list"]}
    assert variables == {"model", "router", "expert", "traces"}
    text = json.dumps(dashboard()["panels"])
    assert {f"${name}" for name in variables} <= set(re.findall(r"\$\w+", text))


def test_every_alert_has_its_section_in_the_runbook() -> None:
    runbook = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (\w+)$", runbook, re.MULTILINE)
    assert sections == [*alerts()]
    assert len(sections) >= 5
    for name, rule in alerts().items():
        assert f"runbook: docs/runbook.md#{name.lower()}\n" in rule
        assert "severity: " in rule
        assert "summary: " in rule


def test_prometheus_reads_the_alerts() -> None:
    config = (ROOT / "deploy/prometheus.yaml").read_text(encoding="utf-8")
    assert "rule_files: [alerts.yaml]" in config
    composed = (ROOT / "deploy/compose.observability.yaml").read_text(encoding="utf-8")
    assert "./alerts.yaml:/etc/prometheus/alerts.yaml:ro" in composed

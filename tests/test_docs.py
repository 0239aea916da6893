"""What the documents name is what the code has."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Metrics, attributes and spans; the packages of the protos begin with the same word.
TELEMETRY_NAME = re.compile(r"(gen_ai|moesaic|gateway|router|expert)(\.(?!v1\b)[a-z_]+)+")


def strings_in_code() -> set[str]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "services").rglob("*.py")]
    constants = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def test_every_metric_attribute_and_span_is_documented():
    documented = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    names = {string for string in strings_in_code() if TELEMETRY_NAME.fullmatch(string)}
    assert len(names) > 30
    assert {name for name in names if f"`{name}`" not in documented} == set()


def test_every_documented_metric_exists():
    documented = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    _, _, metrics = documented.partition("## Metrics")
    named = {name for row in re.findall(r"^\| (`.*?) \|", metrics, re.MULTILINE) for name in row.split("`")[1::2]}
    assert named
    assert named - strings_in_code() == set()


def test_links_between_documents_lead_somewhere():
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    targets = {
        (document, target)
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
    }
    assert [str(target) for document, target in targets if not (document.parent / target).exists()] == []

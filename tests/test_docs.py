"""What the documents name is what the code has."""

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.main import COMMANDS, main
from tests.import_graph import graph_of

ROOT = Path(__file__).parents[1]
MAX_COLUMNS = 100
# Metrics, attributes and spans; the packages of the protos begin with the same word.
TELEMETRY_NAME = re.compile(r"(gen_ai|moesaic|gateway|router|expert)(\.(?!v1\b)[a-z_]+)+")


def strings_in_code() -> set[str]:
    trees = [
        ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "services").rglob("*.py")
    ]
    constants = (
        node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)
    )
    return {value for value in constants if isinstance(value, str)}


def test_every_metric_attribute_and_span_is_documented() -> None:
    documented = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    names = {string for string in strings_in_code() if TELEMETRY_NAME.fullmatch(string)}
    assert len(names) > 30
    assert {name for name in names if f"`{name}`" not in documented} == set()


def test_every_documented_metric_exists() -> None:
    documented = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    _, _, metrics = documented.partition("## Metrics")
    named = {
        name
        for row in re.findall(r"^\| (`.*?) \|", metrics, re.MULTILINE)
        for name in row.split("`")[1::2]
    }
    assert named
    assert named - strings_in_code() == set()


def test_links_between_documents_lead_somewhere() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    targets = {
        (document, target)
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
    }
    assert [
        str(target) for document, target in targets if not (document.parent / target).exists()
    ] == []


def commands_in(document: str) -> Iterator[list[str]]:
    """The words of every line of `moesaic …` in the document's blocks."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^moesaic .*", block, re.MULTILINE):
            yield shlex.split(line.partition("  # ")[0], comments=True)


DOCUMENTED = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
DOCUMENTED_COMMANDS = {
    shlex.join(words): words for document in DOCUMENTED for words in commands_in(document)
}


@pytest.mark.parametrize("line", DOCUMENTED_COMMANDS)
def test_every_documented_command_is_one_with_such_flags(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, name, *rest = DOCUMENTED_COMMANDS[line]
    assert name in COMMANDS
    action = rest[:1] if name in ("placement", "experts", "routing", "tokens") else []
    with pytest.raises(SystemExit) as ended:
        main([name, *action, "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert [
        flag
        for flag in rest
        if flag.startswith("--") and f"{flag} " not in told and f"{flag}," not in told
    ] == []


def test_a_fresh_shell_is_told_how_it_finds_the_command_before_it_is_to_type_it() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.index("```\n. .venv/bin/activate\n") < readme.index("```\nmoesaic ")
    assert len(readme.splitlines()) <= 150
    command = ["make", "--no-print-directory", "-n", "run"]
    printed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "Next, in this shell:" in printed.stdout
    assert "'  . .venv/bin/activate " in printed.stdout


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| \[(\d{4})\]\((.*?)\) \| \d{4}-\d\d-\d\d \| .+? \| .+? \| .+? \|$", index, re.MULTILINE
    )
    assert [name for _, name in rows] == sorted(path.name for path in folder.glob("0*.md"))
    assert all(name.startswith(number) for number, name in rows)


@pytest.mark.parametrize("folder", ["services", "services/router"])
def test_the_diagram_of_floors_has_every_room_above_those_it_imports(folder: str) -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    (diagram,) = re.findall(rf"^```\n{folder}/\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    # Rooms stand two blanks apart, and three or more before what is said of them.
    lines = [re.split(r" {3,}", line.strip())[0].split() for line in diagram.splitlines()]
    lines_of = {room: number for number, rooms in enumerate(lines) for room in rooms}
    rooms = {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}
    assert rooms <= lines_of.keys()
    wrong = [
        f"{room} imports {imported}"
        for room, arrows in graph_of(ROOT / folder).arrows.items()
        for imported in arrows & lines_of.keys()
        if room in lines_of and lines_of[room] >= lines_of[imported]
    ]
    assert wrong == []


def prose_of(document: Path) -> Iterator[tuple[int, str]]:
    """The lines of a document outside of tables and blocks of code, without links' targets."""
    text = document.read_text(encoding="utf-8")
    is_code = False
    for number, line in enumerate(text.splitlines(), start=1):
        is_code ^= line.startswith("```")
        if not is_code and not line.startswith("|"):
            yield number, re.sub(r"\]\([^)]*\)", "]", line)


def test_prose_is_at_most_100_columns_wide() -> None:
    documents = {ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")}
    assert [
        f"{document.relative_to(ROOT)}:{number}"
        for document in sorted(documents - {ROOT / "docs/code-map.md"})
        for number, line in prose_of(document)
        if len(line) > MAX_COLUMNS
    ] == []


def test_the_code_map_is_what_the_files_say() -> None:
    checked = subprocess.run([ROOT / "scripts/code-map", "--check"], timeout=60, check=False)
    assert checked.returncode == 0, "docs/code-map.md is stale: run scripts/code-map"

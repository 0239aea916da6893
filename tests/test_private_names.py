"""Names that other libraries do not promise to keep: each library's stand in one file of ours."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path.relative_to(ROOT) for path in (ROOT / "services").rglob("*.py"))
BENCHES = sorted(path.relative_to(ROOT) for path in (ROOT / "bench").rglob("*.py"))
TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))
INTERNALS = [path for path in SOURCES if path.stem.endswith("_internals")]
OURS = {"services", "moesaic"}
# Of named tuples and of `os`: documented, with an underscore for other reasons.
DOCUMENTED = {"_replace", "_asdict", "_fields", "_make", "_exit"}
# The modules in C, which the files beside them stand for.
COMPILED = {"_native", "_codec", "_streams"}
# What is promised is at its top level; modules below have moved with every other release.
PROMISED_AT_THE_TOP = {"transformers"}
BY_NAME = {"getattr", "setattr", "hasattr", "delattr"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in {"_", *DOCUMENTED}


def defined_in(tree: ast.Module) -> set[str]:
    """What the file itself calls so: functions, classes, variables, parameters, attributes."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                names.add(name)
            case ast.Attribute(ast.Name("self" | "cls" | "result"), name, ast.Store()):
                names.add(name)
            case ast.Name(name, ast.Store()) | ast.arg(name):
                names.add(name)
    return names


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Full names of what is imported from others."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    yield from (name for name in names if name.partition(".")[0] not in OURS)


def is_reached_for(name: str) -> bool:
    """Whether an import is of something private, or from below where it is promised."""
    first, *path = name.split(".")
    return any(map(is_private, (first, *path))) or (first in PROMISED_AT_THE_TOP and len(path) > 1)


def private_names(tree: ast.Module, inherited: set[str]) -> Iterator[str]:
    """Private names of others in a file; `inherited` are those that `self` may have from ours."""
    own = defined_in(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                yield from filter(is_reached_for, imported(node))
            case ast.Attribute(ast.Name("self" | "cls"), name) if name in inherited:
                pass
            case ast.Attribute(_, name) if is_private(name) and name not in own:
                yield name
            case ast.keyword(str(name)) if is_private(name) and name not in own:
                yield name
            case ast.Call(ast.Name(function), [_, ast.Constant(str(name)), *_]) if (
                function in BY_NAME and is_private(name) and name not in own
            ):
                yield name


def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def test_tests_reach_for_no_private_names_of_ours() -> None:
    ours: set[str] = set()
    reached: dict[str, set[str]] = {}
    for path in [*SOURCES, *BENCHES, *TESTS]:
        tree = parsed(path)
        ours |= defined_in(tree)
        if path in TESTS:
            reached[str(path)] = set(filter(is_private, reached_by_a_test(tree))) - COMPILED
    assert {path: names & ours for path, names in reached.items() if names & ours} == {}


def reached_by_a_test(tree: ast.Module) -> Iterator[str]:
    """Names that a test imports from us, reads of what is not itself, or replaces."""
    own = defined_in(tree)
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(_, aliases):
                yield from (alias.name for alias in aliases)
            case ast.Attribute(_, name) if name not in own:
                yield name
            case ast.Call(ast.Attribute(_, "setattr"), [_, ast.Constant(str(name)), *_]):
                yield name


def test_nothing_but_the_internals_reaches_for_private_names() -> None:
    trees = {path: parsed(path) for path in SOURCES}
    ours = set().union(*map(defined_in, trees.values()))
    found = {
        str(path): names
        for path, tree in trees.items()
        if path not in INTERNALS and (names := sorted(set(private_names(tree, ours))))
    }
    assert found == {}


@pytest.mark.parametrize("path", INTERNALS, ids=str)
def test_an_internals_file_is_there_for_private_names(path: Path) -> None:
    assert list(private_names(parsed(path), set()))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from torch.nn import _reduction", "torch.nn._reduction"),
        ("import torch._dynamo", "torch._dynamo"),
        ("from torch._dynamo import config", "torch._dynamo.config"),
        ("from transformers.cache_utils import Cache", "transformers.cache_utils.Cache"),
        ("channel._channel.close()", "_channel"),
        ("call()._done = True", "_done"),
        ("self._rebuild()", "_rebuild"),
        ("BaseSettings(_env_file=None)", "_env_file"),
        ("getattr(module, '_hooks', None)", "_hooks"),
    ],
)
def test_a_private_name_is_found(source: str, found: str) -> None:
    assert list(private_names(ast.parse(source), set())) == [found]


@pytest.mark.parametrize(
    "source",
    [
        "from services.expert.compute import _together",
        "library._read(key)",
        "monkeypatch.setattr(Library, '_read', fail)",
    ],
)
def test_a_private_name_that_a_test_reaches_for_is_found(source: str) -> None:
    assert any(map(is_private, reached_by_a_test(ast.parse(source))))


@pytest.mark.parametrize(
    "source",
    [
        "from transformers import Cache",
        "from services.kernels.level import _native",
        "self._read()",
        "def _mine(): ...\nother._mine()",
        "span._replace(name='a')",
        "os._exit(1)",
        "type(self).__name__",
    ],
)
def test_ours_and_what_is_documented_are_no_private_names(source: str) -> None:
    assert list(private_names(ast.parse(source), {"_read"})) == []

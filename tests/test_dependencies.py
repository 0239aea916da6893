"""What is imported is declared: nothing is there only because something else needs it too."""

import ast
import re
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = {"services", "moesaic"}


def imported_modules() -> set[str]:
    """Every module of others that the services import, wherever in a file."""
    modules = set()
    for path in (ROOT / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in modules if name.split(".")[0] not in {*OURS, *sys.stdlib_module_names}}


def normal(name: str) -> str:
    """A distribution's name as names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def files_of(name: str) -> frozenset[str]:
    return frozenset(str(file) for file in distribution(name).files or ())


@cache
def distributions_of_packages() -> Mapping[str, list[str]]:
    """Which distributions bring each package: every installed file is looked at, so once."""
    return packages_distributions()


def brought_by(module: str) -> str:
    """The distribution that brings a module; several share a name such as `opentelemetry`."""
    several = sorted(set(distributions_of_packages()[module.split(".")[0]]))
    if len(several) == 1:
        return normal(several[0])
    path = module.replace(".", "/")
    while path:
        for name in several:
            if {f"{path}.py", f"{path}/__init__.py"} & files_of(name):
                return normal(name)
        path = path.rpartition("/")[0]  # what was imported was no module but a name in it
    raise LookupError(module)


def declared() -> set[str]:
    """What `pip install` brings because we ask for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {normal(re.split(r"[^\w.-]", line)[0]) for line in project["dependencies"]}


def test_what_the_services_import_is_declared() -> None:
    assert {brought_by(module) for module in imported_modules()} - declared() == set()

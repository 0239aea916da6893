"""What is imported is declared: nothing is there only because something else needs it too."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

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


def pinned(file: str) -> dict[str, str]:
    """Versions by packages' names."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pins = [line.split()[0].split("==") for line in lines if not line.startswith("#")]
    return {normal(name): version for name, version in pins}


def test_what_the_image_installs_by_hash_is_what_the_constraints_say() -> None:
    constraints = pinned("constraints.txt")
    hashed = pinned("deploy/requirements.txt") | pinned("deploy/torch-requirements.txt")
    known = {name: version for name, version in hashed.items() if name in constraints}
    assert known == {name: constraints[name] for name in known}
    assert set(hashed) - set(constraints) == {"setuptools"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed, for_developers = (
        {normal(re.split(r"[^\w.-]", one)[0]) for one in some}
        for some in (project["dependencies"], project["optional-dependencies"]["dev"])
    )
    assert for_developers & set(hashed) == set()
    assert needed - set(hashed) == {"torch"}  # whose build is chosen when an image is built


@pytest.mark.parametrize("file", ["requirements.txt", "torch-requirements.txt"])
def test_every_requirement_of_the_image_has_a_hash(file: str) -> None:
    lines = (ROOT / "deploy" / file).read_text(encoding="utf-8").splitlines()[1:]
    assert [line for line in lines if not re.search(r" --hash=sha256:[0-9a-f]{64}$", line)] == []


def test_the_bill_of_materials_has_what_is_installed() -> None:
    command = [sys.executable, str(ROOT / "deploy/sbom.py"), "moesaic", "base@sha256:1"]
    printed = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
    document = json.loads(printed)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    found = {component["name"].lower() for component in document["components"]}
    assert {"grpcio", "torch", "moesaic", "cpython"} <= found

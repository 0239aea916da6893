"""The shape of the code: who may import whom, and how long files and functions may be."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.import_graph import graph_of

ROOT = Path(__file__).parents[1]
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 50
# Imports point one way: a package may import itself and what stands beside its name, and no other
# of ours.
MAY_IMPORT = {
    "wire": {"kernels", "moesaic"},
    "runtime": {"wire", "moesaic"},
    "kernels": set(),
    "metadata": {"wire"},
    "model": {"wire", "kernels", "metadata"},
    "gateway": {"runtime", "wire", "metadata", "moesaic"},
    "router": {"runtime", "wire", "metadata", "model", "kernels", "moesaic"},
    "expert": {"runtime", "wire", "model", "kernels", "moesaic"},
    "traces": {"wire"},
    "tracing": {"runtime", "wire", "traces"},
    "cli": {"runtime", "wire", "model", "gateway", "router", "expert", "traces", "moesaic"},
}
# Inside the router, too, rooms import rooms below them alone; files at its door may import all.
ROUTER_MAY_IMPORT = {
    "arrays": set(),
    "times": set(),
    "lanes": {"times"},
    "engine": {"lanes", "times"},
    "load": {"arrays"},
    "peers": {"arrays", "times"},
    "planning": {"arrays", "load"},
    "dispatch": {"arrays", "engine", "load", "peers", "times"},
    "hosting": {"dispatch", "peers", "planning"},
    "balance": {"arrays", "hosting", "load", "peers", "planning", "settings"},
}
BENCHES = {
    "transport",
    "layer",
    "kernels",
    "scale",
    "generate",
    "hosting",
    "placement",
    "tracing",
    "real_size",
    "crowd",
    "door",
    "sampling",
}
BENCH_MAY_IMPORT = {
    "harness": set(),
    "rig": {"harness"},
    **{bench: {"harness", "rig"} for bench in BENCHES},
    # Five are built on what another measures, one on another's network that does damage.
    "generate": {"harness", "rig", "kernels"},
    "scale": {"harness", "rig", "layer"},
    "placement": {"harness", "rig", "layer"},
    "tracing": {"harness", "rig", "hosting"},
    "real_size": {"harness", "rig", "generate", "hosting"},
    "trees": {"harness", "rig", "generate", "real_size"},
    "soak": {"harness", "rig", "hosting"},
}
WITHOUT_TORCH = ("metadata", "gateway", "tracing", "cli", "runtime", "wire")
# The files between torch and the wire.
MAY_IMPORT_TORCH = {
    Path("services/wire") / name
    for name in ("frames.py", "received.py", "row_bytes.py", "native/messages.py")
}
# What the machine has, which no caller chooses; benches' sizes are constants of whole programs.
PATCHED_CONSTANTS = {"AVAILABLE"}
TORCH_PACKAGES = {"torch", "transformers", "safetensors"}

SOURCES = sorted(
    path.relative_to(ROOT)
    for folder in ("services", "train")
    for path in (ROOT / folder).rglob("*.py")
)
PACKAGED = [path for path in SOURCES if path.parts[0] == "services" and len(path.parts) > 2]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Every module that the file names in an import, wherever in the file."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where something comes from"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(module: str) -> str | None:
    """The package of ours that a module belongs to."""
    parts = module.split(".")
    if parts[0] == "services" and len(parts) > 1:
        return parts[1]
    return "moesaic" if parts[0] == "moesaic" else None


def test_every_package_is_in_the_table() -> None:
    assert {path.parts[1] for path in PACKAGED} == set(MAY_IMPORT)


def test_imports_point_one_way() -> None:
    wrong = [
        f"{path} imports services.{imported}"
        for path in PACKAGED
        for imported in {ours(module) for module in imports(path)} - {None, path.parts[1]}
        if imported not in MAY_IMPORT[path.parts[1]]
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("folder", "table"), [("services/router", ROUTER_MAY_IMPORT), ("bench", BENCH_MAY_IMPORT)]
)
def test_rooms_are_on_floors(folder: str, table: dict[str, set[str]]) -> None:
    graph = graph_of(ROOT / folder)
    assert graph.circles == []
    rooms = {path.name for path in (ROOT / folder).iterdir() if (path / "__init__.py").exists()}
    assert rooms <= table.keys() <= graph.arrows.keys()
    wrong = [
        f"{room} imports {imported}"
        for room, may_import in table.items()
        for imported in graph.arrows[room] - may_import
    ]
    assert wrong == []


def test_only_frames_bring_torch_to_the_wire() -> None:
    bringing = {
        path
        for path in PACKAGED
        if path.parts[1] in WITHOUT_TORCH
        and {module.partition(".")[0] for module in imports(path)} & TORCH_PACKAGES
    }
    assert bringing <= MAY_IMPORT_TORCH


def test_what_is_said_over_http_is_translated_and_nothing_else() -> None:
    # It reaches the model by `Generation.run` alone, as the gRPC service does.
    may_import = {
        *("caller", "checkpoint", "clients", "deadline", "generation", "outside", "relay"),
        *("merging", "methods", "receipt", "refusals", "request_metrics", "requests", "results"),
        *("routers", "turns", "workers_apart", "http"),
    }
    door = [path for path in PACKAGED if path.parts[1:3] == ("gateway", "http")]
    rooms = {
        module.split(".")[2]
        for path in door
        for module in imports(path)
        if module.startswith("services.gateway.")
    }
    assert rooms <= may_import
    protos = {module for path in door for module in imports(path) if ours(module) == "moesaic"}
    assert {module.split(".")[-1] for module in protos} <= {
        *("v1", "common_pb2", "generation_pb2"),
    }
    running = [
        path.name
        for path in door
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and node.attr == "run"
    ]
    assert running == ["generate.py"]


def test_what_is_decided_about_an_expert_service_knows_no_grpc() -> None:
    speaking = {
        path.name
        for path in PACKAGED
        if path.parts[2] == "peers"
        and {"grpc", "services.runtime.calls", "services.runtime.channels"} & set(imports(path))
    }
    assert speaking == {"peer.py", "hosting_calls.py", "grpc_transport.py"}


@pytest.mark.parametrize(
    "module",
    [
        "services.gateway.app",
        "services.tracing.app",
        "services.cli.main",
        "services.cli.generate",
        "services.cli.serve",
        "services.cli.services",
        "services.router.settings",
        "services.expert.settings",
        "services.runtime.process",
        "services.runtime.server",
        "services.wire.errors",
    ],
)
def test_torch_stays_out_of_what_starts_before_it(module: str) -> None:
    script = f"import sys, {module}; sys.exit(bool({TORCH_PACKAGES!r} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == 0


def test_files_are_short() -> None:
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path: count for path, count in lines.items() if count > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    long = [
        f"{path}: {node.name}"
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, Function) and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert long == []


def test_tests_pass_limits_and_times_in() -> None:
    patched = {
        f"{path}: {name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if "bench" not in path.parts
        for node in ast.walk(parsed(path))
        if (name := patched_constant(node)) is not None and name not in PATCHED_CONSTANTS
    }
    assert patched == set()


def patched_constant(node: ast.AST) -> str | None:
    """The constant of a module that a call replaces by its name."""
    match node:
        case ast.Call(ast.Attribute(_, "setattr"), [_, ast.Constant(str(name)), *_]):
            return name if name.isupper() else None
    return None


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ('monkeypatch.setattr(module, "HOLD_SECONDS", 60.0)', "HOLD_SECONDS"),
        ('monkeypatch.setattr(Bank, "fill", fail)', None),
    ],
)
def test_a_patched_constant_is_found(call: str, name: str | None) -> None:
    assert patched_constant(ast.parse(call, mode="eval").body) == name


def test_modules_say_in_their_first_line_what_they_are_for() -> None:
    assert [path for path in SOURCES if not (ast.get_docstring(parsed(path)) or "").strip()] == []


def test_clients_are_opened_where_proxies_are_kept_away() -> None:
    opening = re.compile(r"\b(urlopen|insecure_channel|secure_channel)\(|trust_env")
    sources = (
        path
        for folder in ("services", "bench", "tests/compose")
        for path in (ROOT / folder).rglob("*.py")
    )
    found = {
        str(path.relative_to(ROOT))
        for path in sources
        if opening.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"services/runtime/channels.py", "services/runtime/otlp/grpc_sender.py"}

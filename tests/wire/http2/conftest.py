"""The programs in C that these tests run, built from the framing's own sources."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.wire.http2.script import Play

ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "services/wire/http2").glob("*.c"))
COMPILER = shlex.split(os.environ.get("CC", "cc"))
# `scripts/check-sanitised` adds sanitizers.
FLAGS = ["-std=gnu11", "-O1", *shlex.split(os.environ.get("CFLAGS", ""))]

Build = Callable[[str], Path]


@pytest.fixture(scope="session")
def framing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The framing as a library. Skips where there is no compiler."""
    if shutil.which(COMPILER[0]) is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("http2")
    _compile(["-c", *map(str, SOURCES)], folder)
    subprocess.run(
        ["ar", "rcs", "libhttp2.a", *(f"{source.stem}.o" for source in SOURCES)],
        cwd=folder,
        check=True,
    )
    return folder


@pytest.fixture(scope="session")
def build(framing: Path) -> Build:
    """Builds a program of this folder, once, and says where it is."""

    def built(name: str) -> Path:
        program = framing / name
        if not program.exists():
            source = Path(__file__).parent / f"{name}.c"
            _compile([f"-I{ROOT}", "-o", name, str(source), "libhttp2.a"], framing)
        return program

    return built


@pytest.fixture
def play(build: Build) -> Play:
    """Plays a script; what was said but for what every connection says first."""

    def played(role: str, *lines: str, **limits: int) -> list[str]:
        ended = subprocess.run(
            [build("replay"), role, *(f"{name}={value}" for name, value in limits.items())],
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        said = ended.stdout.splitlines()
        first = [said.index(line) for line in said if line == "> SETTINGS 0 flags 0"]
        for at in first[:1]:
            assert said[at + 1].startswith("> WINDOW_UPDATE 0 ")
            del said[at : at + 2]
        return said

    return played


def _compile(arguments: list[str], folder: Path) -> None:
    subprocess.run([*COMPILER, *FLAGS, *arguments], cwd=folder, check=True)

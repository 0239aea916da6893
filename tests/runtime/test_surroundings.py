"""A process that computes, started where it cannot."""

import os
import subprocess
import sys
from pathlib import Path

START = """
from services.router.settings import RouterSettings
from services.runtime.process import run_service
run_service("router", RouterSettings, ["--listen", "127.0.0.1:0"])
"""
ASK = """
from services.runtime.surroundings import refuse_surroundings
refuse_surroundings()
"""


def run(*command: str, folder: Path, **variables: str) -> tuple[int, str]:
    """Exit code and stderr."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stderr


def test_a_working_directory_that_is_gone_is_told_in_a_line(tmp_path: Path) -> None:
    (gone := tmp_path / "gone").mkdir()
    code, said = run(
        "sh", "-c", 'rmdir "$PWD" && exec "$0" -P -c "$1"', sys.executable, START, folder=gone
    )
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("moesaic router: the working directory does not exist any more")


def test_docstrings_that_are_left_out_are_told_in_a_line(tmp_path: Path) -> None:
    code, said = run(sys.executable, "-P", "-c", START, folder=tmp_path, PYTHONOPTIMIZE="2")
    assert (code, said.count("\n")) == (1, 1)
    assert "PYTHONOPTIMIZE=2" in said


def test_asserts_may_be_left_out(tmp_path: Path) -> None:
    assert run(sys.executable, "-P", "-c", ASK, folder=tmp_path, PYTHONOPTIMIZE="1") == (0, "")

"""Lines that are printed to be typed."""

import os
import sys
from pathlib import Path

import pytest

from services.runtime.invocation import typed

LINE = 'ready: moesaic generate --address 127.0.0.1:50051 "Once"'


@pytest.fixture
def command(tmp_path: Path) -> Path:
    folder = tmp_path / "with space"
    folder.mkdir()
    command = folder / "moesaic"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    return command


def test_a_command_that_the_shell_does_not_find_is_named_as_it_was_typed(
    monkeypatch: pytest.MonkeyPatch, command: Path
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setattr(sys, "argv", [str(command)])
    assert typed(LINE) == f"ready: '{command}' generate --address 127.0.0.1:50051 \"Once\""


def test_another_command_of_that_name_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, command: Path, tmp_path: Path
) -> None:
    other = tmp_path / "moesaic"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(command)])
    assert str(command) in typed(LINE)


def test_a_command_that_the_shell_finds_is_named_by_its_name(
    monkeypatch: pytest.MonkeyPatch, command: Path
) -> None:
    monkeypatch.setenv("PATH", str(command.parent))
    monkeypatch.setattr(sys, "argv", [str(command)])
    assert typed(LINE) == LINE


def test_a_process_of_another_name_says_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytest"])
    assert typed(LINE) == LINE

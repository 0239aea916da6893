"""Errors that services log are shown to who has started them, and nothing else of their logs."""

import logging
from pathlib import Path

import pytest

from services.cli.error_lines import ErrorLines
from services.runtime.logs import configure_logging


@pytest.fixture
def texts() -> list[str]:
    return []


@pytest.fixture
def lines(tmp_path: Path, texts: list[str]) -> ErrorLines:
    return ErrorLines(tmp_path, texts.append)


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> str:
    """A log as a router writes it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging("router", "info")
    logger = logging.getLogger("services.router.peers.peer")
    logger.info("connected to ERROR")
    logger.error("expert service %s: its checkpoint is not the router's", "a:1")
    logger.warning("lost expert service b:1")
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    return capsys.readouterr().err


def test_an_error_is_shown_with_who_logged_it(
    lines: ErrorLines, texts: list[str], tmp_path: Path, logged: str
) -> None:
    (tmp_path / "router.log").write_text(logged)
    lines.look()
    lines.look()
    assert texts == ["router: expert service a:1: its checkpoint is not the router's"]


def test_what_comes_later_is_shown_once_its_line_is_whole(
    lines: ErrorLines, texts: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "expert-0.log"
    log.write_bytes(
        b"not a log line\n2026-01-01T00:00:00.000Z ERROR   expert services.expert.app: it"
    )
    lines.look()
    assert texts == []
    with log.open("ab") as file:
        file.write(
            b" failed\n2026-01-01T00:00:00.000Z ERROR   expert services.expert.app: it failed\n"
        )
    lines.look()
    assert texts == ["expert-0: it failed"]  # the same once in a row

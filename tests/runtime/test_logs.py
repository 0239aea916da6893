"""A line of the log is one line, whoever wrote what stands in it."""

import logging
from collections.abc import Iterator

import pytest

from services.runtime.logs import configure_logging


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root, level = logging.getLogger(), logging.getLogger().level
    handlers = root.handlers[:]
    yield None
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_what_a_peer_wrote_is_escaped_in_messages_and_tracebacks(
    capsys: pytest.CaptureFixture[str], restored_logging: None
) -> None:
    configure_logging("test", "info")
    logger = logging.getLogger("services.test")
    logger.warning("the peer says %s", "fine\n2026-01-01 ERROR forged\x1b[2J" + "x" * 100_000)
    try:
        raise ValueError("told \x1b[31mred")
    except ValueError:
        logger.exception("it failed")
    said = capsys.readouterr().err
    first, second, *traceback = said.splitlines()
    assert r"the peer says fine 2026-01-01 ERROR forged\x1b[2Jxxx" in first
    assert len(first) < 10_000
    assert second.endswith("it failed")
    assert traceback[-1] == r"ValueError: told \x1b[31mred"

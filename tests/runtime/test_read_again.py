"""Files are read again when they change, and as long as they cannot be."""

import logging
from pathlib import Path

import pytest

from services.runtime.read_again import RETRY_SECONDS, ReadAgain
from services.wire.errors import BadState


def test_what_cannot_be_read_is_tried_until_it_can_and_complained_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file, may_read, now, num_tries = tmp_path / "file", True, 0.0, 0

    def read() -> str:
        nonlocal num_tries
        num_tries += 1
        if not may_read:
            raise BadState("it may not be read")
        return file.read_text()

    file.write_text("before")
    kept = ReadAgain((file,), read, lambda: now)
    file.write_text("afterwards")
    may_read = False  # which changes neither its date nor its size
    assert [kept.current() for _ in range(3)] == ["before"] * 3
    now = RETRY_SECONDS
    assert [kept.current() for _ in range(3)] == ["before"] * 3
    assert num_tries == 3
    may_read, now = True, 2 * RETRY_SECONDS
    assert [kept.current() for _ in range(3)] == ["afterwards"] * 3
    assert len(caplog.messages) == 2


def test_what_has_not_changed_is_read_once(tmp_path: Path) -> None:
    file, times = tmp_path / "file", []
    file.write_text("content")
    kept = ReadAgain((file,), lambda: times.append(1))
    for _ in range(3):
        kept.current()
    file.unlink()  # of nothing, nothing new can be read
    assert len(times) == 1


def test_what_cannot_be_read_at_first_is_refused(tmp_path: Path) -> None:
    def read() -> None:
        raise BadState("nothing is there")

    with pytest.raises(BadState, match="nothing is there"):
        ReadAgain((tmp_path / "none",), read)


def test_files_are_looked_at_no_more_often_than_was_asked_for(tmp_path: Path) -> None:
    file, now = tmp_path / "file", 0.0
    file.write_text("before")
    kept = ReadAgain((file,), file.read_text, lambda: now, look_seconds=1.0)
    file.write_text("afterwards")
    assert kept.current() == "before"
    now = 1.0
    assert kept.current() == "afterwards"
    file.write_text("later")
    now = 1.9
    assert kept.current() == "afterwards"
    now = 2.0
    assert kept.current() == "later"

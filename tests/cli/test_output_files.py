"""Files that a command is to write."""

import os
from pathlib import Path

import pytest

from services.cli.output_files import complaint_of, written_whole


def test_a_file_is_whole_or_what_it_was(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    with written_whole(file) as path:
        path.write_text("one")
        assert not file.exists()
    with pytest.raises(UnicodeEncodeError), written_whole(file) as path:
        path.write_text("half of tw\ud800", encoding="utf-8")
    assert file.read_text() == "one"
    assert [one.name for one in tmp_path.iterdir()] == ["run.json"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (link := tmp_path / "run.json").symlink_to(tmp_path / "real" / "run.json")
    with written_whole(link) as path:
        path.write_text("one")
    assert link.is_symlink()
    assert (tmp_path / "real" / "run.json").read_text() == "one"


def test_what_is_no_regular_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with written_whole(pipe) as path:
            path.write_text("one")
        assert os.read(reading, 100) == b"one"
    finally:
        os.close(reading)
    assert pipe.is_fifo()


def test_a_folder_and_a_missing_one_are_told_before(tmp_path: Path) -> None:
    assert complaint_of(tmp_path / "run.json") is None
    assert "it is a directory" in (complaint_of(tmp_path) or "")
    assert "nothing can be written into" in (complaint_of(tmp_path / "none" / "run.json") or "")

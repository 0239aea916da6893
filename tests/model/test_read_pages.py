"""Bytes that were read are given up where memory is short, and are still the file's."""

import os
import sys
from pathlib import Path

import pytest

from services.model.read_pages import give_up_read

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is Linux's")


@pytest.mark.parametrize(
    ("memory", "is_given_up"),
    [
        ("MemTotal:       1000 kB\nMemFree:          49 kB\n", True),
        ("MemTotal:       1000 kB\nMemFree:          51 kB\n", False),
        ("nothing that is known", False),
        (None, False),
    ],
)
def test_what_was_read_is_given_up_where_little_memory_is_free(
    tmp_path: Path, memory: str | None, is_given_up: bool
) -> None:
    told, path = tmp_path / "meminfo", tmp_path / "file"
    if memory is not None:
        told.write_text(memory)
    path.write_bytes(b"x" * 10_000)
    file = os.open(path, os.O_RDONLY)
    try:
        assert give_up_read(file, 0, 10_000, told) is is_given_up
        assert os.pread(file, 10_000, 0) == b"x" * 10_000
    finally:
        os.close(file)


def test_a_file_of_which_nothing_can_be_given_up_is_read_all_the_same(tmp_path: Path) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:       1000 kB\nMemFree:          49 kB\n")
    for end in (ends := os.pipe()):
        assert not give_up_read(end, 0, 10_000, told)
    for end in ends:
        os.close(end)

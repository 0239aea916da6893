"""Text files that a user names."""

import io
import sys
from pathlib import Path

import pytest

from services.runtime.text_files import STANDARD, Unreadable, read_text


def test_a_byte_order_mark_is_no_text_and_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes("\ufeffone\u2028two\x85\x0c\rthree\r\nfour\n".encode())
    assert read_text(file) == "one\u2028two\x85\x0c\rthree\nfour\n"


def test_a_dash_is_stdin_in_utf_8_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO("é\r\n".encode()), encoding="ascii")
    )
    assert read_text(STANDARD) == "é\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"one\ntwo\n\xff\n", "text:3: it is no UTF-8"),
        ("text".encode("utf-16"), "text:1: it is UTF-16"),
    ],
)
def test_what_is_no_text_is_told_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "text"
    file.write_bytes(content)
    with pytest.raises(Unreadable, match=said):
        read_text(file)


def test_a_folder_and_nothing_are_told_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=f"{tmp_path}: Is a directory"):
        read_text(tmp_path)
    with pytest.raises(Unreadable, match=f"{tmp_path / 'none'}: No such file"):
        read_text(tmp_path / "none")

"""What people are told is one line that no terminal obeys, and short enough to arrive."""

from urllib.parse import quote

import pytest

from services.wire.errors import ServingError, from_code
from services.wire.quoting import MAX_QUOTED_CHARACTERS, MAX_STATUS_BYTES, one_line, quoted

ODD = "a\nb\r\x1b[31mred\x00\u202e\u2028\ud800é"


def test_a_message_is_one_line_in_which_nothing_is_hidden() -> None:
    assert one_line("it failed:\n  line 2\t\x1b[31mred\x07") == r"it failed: line 2 \x1b[31mred\x07"
    assert one_line("naïve  café, 中文 😀") == "naïve  café, 中文 😀"
    assert one_line(ODD).isprintable()


@pytest.mark.parametrize(
    "text", ["x" * 5_000_000, "é" * 4_000, "%" * 4_000, "\x1b" * 4_000, "😀" * 4_000, ODD * 1_000]
)
def test_a_message_is_cut_to_what_a_status_carries(text: str) -> None:
    cut = one_line(text)
    travelling = quote(cut, safe="".join(map(chr, range(0x20, 0x7F))).replace("%", ""))
    assert MAX_STATUS_BYTES - 40 < len(travelling) <= MAX_STATUS_BYTES
    assert cut.endswith("…")


def test_a_message_that_fits_is_left_whole() -> None:
    assert one_line("x" * MAX_STATUS_BYTES) == "x" * MAX_STATUS_BYTES
    assert one_line("") == ""


def test_quoted_text_leaves_room_for_the_sentence_around_it() -> None:
    assert quoted("gpt") == "'gpt'"
    assert quoted("x" * 5_000) == f"'{'x' * (MAX_QUOTED_CHARACTERS - 1)}…'"
    assert quoted(ODD).isprintable()


def test_every_error_that_is_told_is_such_a_message_whoever_wrote_it() -> None:
    for error in (ServingError(ODD), from_code(13, ODD * 1_000)):
        assert str(error).isprintable()
        assert len(str(error)) <= MAX_STATUS_BYTES

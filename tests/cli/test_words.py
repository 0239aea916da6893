"""Words on a terminal stay whole, however their text comes."""

import pytest

from services.cli.words import WordWriter

STORY = "There was a fox who lived by the sea.\n\n  It was quick,\tand never late."


def written(text: str, *, width: int | None, piece: int = 1) -> str:
    out: list[str] = []
    writer = WordWriter(out.append, width=None if width is None else lambda: width)
    for start in range(0, len(text), piece):
        writer.write(text[start : start + piece])
    writer.end()
    return "".join(out)


@pytest.mark.parametrize("piece", [1, 3, 100])
@pytest.mark.parametrize("width", [6, 10, 17, 80])
def test_no_word_is_broken_and_no_line_too_wide(width: int, piece: int) -> None:
    shown = written(STORY, width=width, piece=piece)
    assert shown.split() == STORY.split()
    assert max(len(line.expandtabs(8)) for line in shown.split("\n")) <= width


def test_text_without_a_width_is_as_it_came() -> None:
    assert written(STORY, width=None) == STORY


def test_what_fits_is_as_it_came() -> None:
    assert written(STORY, width=80) == STORY


def test_a_word_wider_than_a_line_is_written_as_it_comes() -> None:
    out: list[str] = []
    writer = WordWriter(out.append, width=lambda: 4)
    writer.write("abcdefghij")
    assert "".join(out) == "abcdefgh"
    writer.end()
    assert "".join(out) == "abcdefghij"


def test_characters_that_are_words_by_themselves_do_not_wait() -> None:
    out: list[str] = []
    WordWriter(out.append, width=lambda: 6).write("天地玄黄")
    assert "".join(out) == "天地玄黄"


def test_a_text_that_follows_another_goes_on_in_its_line() -> None:
    before: list[str] = []
    after: list[str] = []
    writer = WordWriter(after.append, width=lambda: 10)
    writer.follow("Once upon", before.append)
    writer.write(" a time")
    writer.end()
    assert ("".join(before), "".join(after)) == ("Once upon", "\na time")

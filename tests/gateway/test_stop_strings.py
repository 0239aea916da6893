"""A stop string ends the text where it begins, and no part of one is ever shown."""

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.continuation import Continuation
from services.gateway.detokeniser import Detokeniser
from services.gateway.stop_strings import StopStrings
from services.gateway.token_texts import REPLACEMENT, TokenTexts
from tests.gateway.tokenizers_of_each_kind import byte_level

TOKENIZER = byte_level()
TEXTS = TokenTexts.of(TOKENIZER)
# Few letters, so that stop strings are found, overlap and begin in vain.
NARROW = st.text("ab é", max_size=25)
WIDE = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=REPLACEMENT), max_size=25
)
STOPS = st.lists(
    st.text("ab é", min_size=1, max_size=4) | st.text(min_size=1, max_size=3), max_size=4
)


def expected(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition: text grows by single characters until some stop string ends it; the longest
    of them counts.
    """
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(pieces=st.lists(NARROW, max_size=8), stops=STOPS)
def test_text_ends_at_the_first_stop_string_however_it_is_cut(
    pieces: list[str], stops: list[str]
) -> None:
    subject = StopStrings(stops)
    shown = "".join([*(subject.feed(piece) for piece in pieces), subject.flush()])
    assert (shown, subject.matched) == expected("".join(pieces), stops)


@given(pieces=st.lists(NARROW, max_size=8), stops=STOPS)
def test_what_was_shown_never_needs_to_be_taken_back(pieces: list[str], stops: list[str]) -> None:
    subject, shown = StopStrings(stops), ""
    final, _ = expected("".join(pieces), stops)
    for piece in pieces:
        shown += subject.feed(piece)
        assert final.startswith(shown)


@given(text=NARROW | WIDE, stops=STOPS, sizes=st.lists(st.integers(1, 4), max_size=10))
def test_any_split_of_tokens_gives_the_text_up_to_the_first_stop_string(
    text: str, stops: list[str], sizes: list[int]
) -> None:
    ids = TOKENIZER.encode(text).ids
    subject, shown, start = Continuation(Detokeniser(TEXTS), (), stops), "", 0
    for size in [*sizes, *[1] * len(ids)]:
        shown += subject.feed(ids[start : start + size])
        start += size
    shown += subject.finish()
    assert (shown, subject.stop_string) == expected(TOKENIZER.decode(ids), stops)


def test_only_the_possible_beginning_is_held_back() -> None:
    subject = StopStrings(["END"])
    assert subject.feed("the EN") == "the "
    assert subject.feed("VELOPE E") == "ENVELOPE "
    assert subject.flush() == "E"


def test_the_text_of_a_stop_token_is_not_shown() -> None:
    ids = TOKENIZER.encode("one two").ids
    subject = Continuation(Detokeniser(TEXTS), {ids[-1]}, ())
    shown = subject.feed(ids) + subject.finish()
    assert shown == TOKENIZER.decode(ids[:-1])


@given(pieces=st.lists(NARROW, max_size=8), stops=STOPS, num_free=st.integers(0, 8))
def test_a_stop_string_that_ends_too_early_is_text(
    pieces: list[str], stops: list[str], num_free: int
) -> None:
    subject = StopStrings(stops, are_shown=True)
    shown = "".join(
        subject.feed(piece, may_end=place >= num_free) for place, piece in enumerate(pieces)
    )
    shown += subject.flush()
    text, free = "".join(pieces), len("".join(pieces[:num_free]))
    ends = {end for end in range(free + 1, len(text) + 1) if text[:end].endswith(tuple(stops))}
    end = min(ends) if stops and ends else len(text)
    assert shown == text[:end], "and it is shown with the text that it ends"
    assert (subject.matched is None) == (not stops or not ends)


def test_no_stop_string_ends_a_text_before_there_are_enough_tokens() -> None:
    ids = TOKENIZER.encode("aaaa").ids
    assert len(ids) == 4
    texts = []
    for enough in range(5):
        subject = Continuation(Detokeniser(TEXTS), (), ["a"], min_new_tokens=enough)
        texts.append(subject.feed(ids[:3]) + subject.feed(ids[3:]) + subject.finish())
    assert texts == ["", "a", "aa", "aaa", "aaaa"]

"""Text comes out as soon as it can, as the whole would be decoded, and never with half a character."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from services.gateway.detokeniser import REPLACEMENT, Detokeniser
from tests.gateway.tokenizers_of_each_kind import byte_fallback, byte_level, metaspace

BYTE_LEVEL, BYTE_FALLBACK, METASPACE = byte_level(), byte_fallback(), metaspace()
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=REPLACEMENT), max_size=40)


def detokeniser(tokenizer: Tokenizer) -> Detokeniser:
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return Detokeniser(
        lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
        lambda i: i not in special and tokenizer.id_to_token(i) is not None,
    )


def pieces(tokenizer: Tokenizer, ids: list[int], sizes: list[int]) -> list[str]:
    """The text that comes out when `ids` arrive in groups of `sizes`, the rest one by one."""
    subject, texts, start = detokeniser(tokenizer), [], 0
    for size in [*sizes, *[1] * len(ids)]:
        texts.append(subject.feed(ids[start : start + size]))
        start += size
    return [*texts, subject.flush()]


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte_level", "byte_fallback"])
@given(text=TEXTS, sizes=st.lists(st.integers(0, 5), max_size=10))
def test_any_text_comes_out_whole_however_its_tokens_arrive(tokenizer: Tokenizer, text: str, sizes: list[int]) -> None:
    ids = tokenizer.encode(text).ids
    out = pieces(tokenizer, ids, sizes)
    assert "".join(out) == tokenizer.decode(ids, skip_special_tokens=True)
    assert not any(REPLACEMENT in piece for piece in out)


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, METASPACE], ids=["byte_level", "metaspace"])
@given(data=st.data())
def test_any_tokens_come_out_as_the_whole_is_decoded(tokenizer: Tokenizer, data: st.DataObject) -> None:
    # Ids that the tokenizer does not know are left out, as in a vocabulary that was padded.
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() + 3), max_size=30))
    sizes = data.draw(st.lists(st.integers(0, 5), max_size=5))
    assert "".join(pieces(tokenizer, ids, sizes)) == tokenizer.decode(ids, skip_special_tokens=True)


@given(text=TEXTS, cut=st.integers(0, 100))
def test_a_text_that_is_cut_off_shows_its_whole_characters(text: str, cut: int) -> None:
    ids = BYTE_FALLBACK.encode(text).ids[:cut]
    *before_the_end, rest = pieces(BYTE_FALLBACK, ids, [])
    shown = "".join(before_the_end)
    assert REPLACEMENT not in shown
    assert BYTE_FALLBACK.decode(BYTE_FALLBACK.encode(text).ids).startswith(shown)
    assert rest.strip(REPLACEMENT) == ""


def test_a_character_is_held_until_its_last_byte() -> None:
    subject = detokeniser(BYTE_FALLBACK)
    first, *middle, last = (1 + byte for byte in "😀".encode())
    assert subject.feed([first]) == ""
    assert subject.feed(middle) == ""
    assert subject.feed([last]) == "😀"


def test_the_space_after_a_special_token_is_kept() -> None:
    ids = [*METASPACE.encode("the a").ids, METASPACE.token_to_id("<s>"), *METASPACE.encode("b").ids]
    assert "".join(pieces(METASPACE, ids, [])) == "the a b"


def test_the_window_that_is_decoded_again_stays_short() -> None:
    lengths: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        lengths.append(len(ids))
        return BYTE_LEVEL.decode(ids)

    special = BYTE_LEVEL.token_to_id("<|endoftext|>")
    subject = Detokeniser(decode, lambda token_id: token_id != special)
    subject.feed([*BYTE_LEVEL.encode("a long, long text, " * 20).ids, *[special] * 100, 5])
    assert max(lengths) <= 2

"""Text comes out as soon as it can, as the whole would be decoded, and never with half a
character.
"""

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from services.gateway.detokeniser import MAX_PENDING, MAX_UNFINISHED, Detokeniser
from services.gateway.token_texts import REPLACEMENT, TokenTexts
from tests.gateway.tokenizers_of_each_kind import (
    byte_fallback,
    byte_level,
    llama_2s,
    metaspace,
    word_piece,
)

BYTE_LEVEL, BYTE_FALLBACK, METASPACE = byte_level(), byte_fallback(), metaspace()
LLAMA_2S, WORD_PIECE = llama_2s(), word_piece()
# Those that are no character, or not a whole one.
LONE_BYTES = [
    i for i in range(BYTE_LEVEL.get_vocab_size()) if REPLACEMENT in BYTE_LEVEL.decode([i])
]
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=REPLACEMENT), max_size=40
)


@cache
def texts_of(tokenizer: Tokenizer) -> TokenTexts:
    """As a gateway has them: what one example asked for is remembered for the next."""
    return TokenTexts.of(tokenizer)


def detokeniser(tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> Detokeniser:
    return Detokeniser(texts_of(tokenizer), prompt)


def token_id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    assert found is not None
    return found


def pieces(
    tokenizer: Tokenizer, ids: list[int], sizes: list[int], prompt: Sequence[int] = ()
) -> list[str]:
    """The text that comes out when `ids` arrive in groups of `sizes`, the rest one by one."""
    subject, texts, start = detokeniser(tokenizer, prompt), [], 0
    for size in [*sizes, *[1] * len(ids)]:
        texts.append(subject.feed(ids[start : start + size]))
        start += size
    return [*texts, subject.flush()]


@pytest.mark.parametrize(
    "tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte_level", "byte_fallback"]
)
@given(text=TEXTS, sizes=st.lists(st.integers(0, 5), max_size=10))
def test_any_text_comes_out_whole_however_its_tokens_arrive(
    tokenizer: Tokenizer, text: str, sizes: list[int]
) -> None:
    ids = tokenizer.encode(text).ids
    out = pieces(tokenizer, ids, sizes)
    assert "".join(out) == tokenizer.decode(ids, skip_special_tokens=True)
    assert not any(REPLACEMENT in piece for piece in out)


def decoded(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text


def text_of_prompt(tokenizer: Tokenizer, ids: list[int], whole: str) -> str:
    """What of `whole` is the prompt's: all that it decodes to, or all but a character that others
    complete.
    """
    for num_unfinished in range(4):
        text = decoded(tokenizer, ids[: len(ids) - num_unfinished])
        if whole.startswith(text):
            return text
    raise AssertionError(f"{whole!r} has none of the beginning")


@pytest.mark.parametrize(
    "tokenizer", [BYTE_LEVEL, METASPACE, WORD_PIECE], ids=["byte_level", "metaspace", "word_piece"]
)
@given(data=st.data())
def test_prompt_and_continuation_read_as_the_whole_whatever_the_tokens(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() + 3), max_size=50))
    cut = data.draw(st.integers(0, len(ids)))
    sizes = data.draw(st.lists(st.integers(0, 5), max_size=5))
    whole = decoded(tokenizer, ids)
    out = "".join(pieces(tokenizer, ids[cut:], sizes, ids[:cut]))
    assert text_of_prompt(tokenizer, ids[:cut], whole) + out == whole


@pytest.mark.parametrize(
    "tokenizer",
    [BYTE_LEVEL, BYTE_FALLBACK, LLAMA_2S],
    ids=["byte_level", "byte_fallback", "llama_2s"],
)
@given(text=TEXTS, cut=st.integers(0, 100), sizes=st.lists(st.integers(0, 5), max_size=5))
def test_a_text_that_is_cut_anywhere_goes_on_as_the_whole(
    tokenizer: Tokenizer, text: str, cut: int, sizes: list[int]
) -> None:
    ids = tokenizer.encode(text).ids
    whole = decoded(tokenizer, ids)
    out = "".join(pieces(tokenizer, ids[cut:], sizes, ids[:cut]))
    assert text_of_prompt(tokenizer, ids[:cut], whole) + out == whole


@given(data=st.data())
def test_bytes_that_are_no_text_come_out_as_the_whole_is_decoded(data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.sampled_from(LONE_BYTES), max_size=60))
    cut = data.draw(st.integers(0, len(ids)))
    whole = decoded(BYTE_LEVEL, ids)
    out = "".join(pieces(BYTE_LEVEL, ids[cut:], [], ids[:cut]))
    assert text_of_prompt(BYTE_LEVEL, ids[:cut], whole) + out == whole


def test_the_space_before_the_first_new_word_is_kept() -> None:
    the, a = LLAMA_2S.encode("the").ids, LLAMA_2S.encode("a").ids
    assert pieces(LLAMA_2S, a, [], the)[0] == " a"
    assert pieces(LLAMA_2S, a, [], [token_id(LLAMA_2S, "<s>")] * 40)[0] == "a"  # no text before it
    assert pieces(LLAMA_2S, a, [], [*the, *[token_id(LLAMA_2S, "<s>")] * 40])[0] == " a"


@pytest.mark.parametrize("length", [1, 5, 6, 7, 30])
def test_a_character_that_the_prompt_begins_comes_out_whole(length: int) -> None:
    ids = LLAMA_2S.encode("字" * length).ids
    assert "".join(pieces(LLAMA_2S, ids[-2:], [], ids[:-2])) == "字"
    assert "".join(pieces(LLAMA_2S, [*ids[-1:], *LLAMA_2S.encode("a").ids], [], ids[:-1])) == "字 a"


def test_a_replacement_character_of_the_prompt_is_not_repeated() -> None:
    for tokenizer in (BYTE_LEVEL, LLAMA_2S):
        prompt = tokenizer.encode(f"a{REPLACEMENT}").ids
        assert "".join(pieces(tokenizer, tokenizer.encode("b").ids, [], prompt)).strip() == "b"


@pytest.mark.parametrize(
    "tokenizer", [BYTE_LEVEL, BYTE_FALLBACK], ids=["byte_level", "byte_fallback"]
)
def test_text_of_replacement_characters_streams_through_a_short_window(
    tokenizer: Tokenizer,
) -> None:
    lengths: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        lengths.append(len(ids))
        return decoded(tokenizer, ids)

    lone_byte = next(
        i for i in range(tokenizer.get_vocab_size()) if decoded(tokenizer, [i]) == REPLACEMENT
    )
    subject = Detokeniser(TokenTexts(decode, lambda token_id: True))
    texts = [subject.feed([lone_byte]) for _ in range(300)]
    assert all(texts[MAX_UNFINISHED:])
    assert "".join([*texts, subject.flush()]) == REPLACEMENT * 300
    assert max(lengths) <= 2 * MAX_PENDING


def test_replacement_characters_that_are_meant_come_out_one_for_one() -> None:
    for tokenizer in (BYTE_LEVEL, BYTE_FALLBACK):
        text = f"a{REPLACEMENT}{REPLACEMENT * 30}é{REPLACEMENT}"
        ids = tokenizer.encode(text).ids
        assert "".join(pieces(tokenizer, ids, [])).strip() == text


def test_a_token_of_any_length_and_a_nul_come_out() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens(["x" * 100_000])
    ids = tokenizer.encode("a\0" + "x" * 100_000 + "b").ids
    assert "".join(pieces(tokenizer, ids[1:], [], ids[:1])) == "\0" + "x" * 100_000 + "b"


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, METASPACE], ids=["byte_level", "metaspace"])
@given(data=st.data())
def test_any_tokens_come_out_as_the_whole_is_decoded(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
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
    ids = [*METASPACE.encode("the a").ids, token_id(METASPACE, "<s>"), *METASPACE.encode("b").ids]
    assert "".join(pieces(METASPACE, ids, [])) == "the a b"


def test_the_window_that_is_decoded_again_stays_short() -> None:
    lengths: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        lengths.append(len(ids))
        return BYTE_LEVEL.decode(ids)

    special = token_id(BYTE_LEVEL, "<|endoftext|>")
    subject = Detokeniser(TokenTexts(decode, lambda token_id: token_id != special))
    subject.feed([*BYTE_LEVEL.encode("a long, long text, " * 20).ids, *[special] * 100, 5])
    assert max(lengths) <= 2


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, LLAMA_2S], ids=["byte_level", "llama_2s"])
def test_a_text_that_was_decoded_once_is_not_decoded_again(tokenizer: Tokenizer) -> None:
    num_decoded = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal num_decoded
        num_decoded += 1
        return decoded(tokenizer, ids)

    texts = TokenTexts(decode, lambda token_id: True, is_by_token=tokenizer is BYTE_LEVEL)
    prompt, *ids = tokenizer.encode("the a the b").ids
    first, second = Detokeniser(texts, [prompt]), Detokeniser(texts, [prompt])
    text = first.feed(ids)
    so_far = num_decoded
    assert second.feed(ids) == text
    assert num_decoded == so_far

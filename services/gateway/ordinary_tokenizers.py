"""Which tokenizers are read and used in the gateway itself: those that surely take little time and
memory. All others are tried, and some used, in processes that have bounds.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import Tokenizer, models

from services.gateway.known_patterns import is_known
from services.gateway.tokenizer_parts import PARTS, growth, parts_of, steps

# What is read takes some hundred times as much, where it is meant to: a tree of characters, say.
MAX_BYTES = 1 << 20
# As a text goes through them one after the other.
MAX_PARTS = 16
MAX_GROWTH = 16.0
MAX_LITERAL_CHARACTERS = 64
# Of a word, where time grows with its cube, and of a piece that is looked for at each place.
MAX_WORD_CHARACTERS = 100
MAX_PIECE_CHARACTERS = 64
_BEFORE_THE_MODEL = ("normalizer", "pre_tokenizer")


def is_ordinary_file(content: bytes) -> bool:
    """Whether a tokenizer.json can be read here. What is no JSON is as good as any: it is refused
    at once.
    """
    if len(content) > MAX_BYTES:
        return False
    try:
        read = json.loads(content, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError):
        return False
    return isinstance(read, dict) and all(
        map(is_known, _patterns([read.get(name) for name in PARTS]))
    )


def is_ordinary(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer that was read can encode here: in time that grows with the text alone."""
    parts = parts_of(tokenizer)
    before = [*map(list, (steps(parts[name]) for name in _BEFORE_THE_MODEL if name in parts))]
    grown = 1.0
    for part in before:
        grown *= growth("", part)
    return (
        sum(map(len, before)) <= MAX_PARTS
        and grown <= MAX_GROWTH
        and all(map(is_known, _patterns(before)))
        and all(len(literal) <= MAX_LITERAL_CHARACTERS for literal in _found("String", before))
        and _is_quick(tokenizer)
    )


def _is_quick(tokenizer: Tokenizer) -> bool:
    model = tokenizer.model
    if isinstance(model, models.WordPiece):
        return bool(model.max_input_chars_per_word <= MAX_WORD_CHARACTERS)
    if isinstance(model, models.Unigram):
        return max(map(len, tokenizer.get_vocab()), default=0) <= MAX_PIECE_CHARACTERS
    return isinstance(model, models.BPE | models.WordLevel)


def _patterns(value: Any) -> Iterator[str]:
    return _found("Regex", value)


def _found(name: str, value: Any) -> Iterator[str]:
    """The texts in the fields of that name, wherever they are."""
    inner: Iterable[Any] = ()
    if isinstance(value, dict):
        if name in value:
            yield str(value[name])
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    for each in inner:
        yield from _found(name, each)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise ValueError("a field is there twice")
    return read

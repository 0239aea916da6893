"""Which tokenizers the gateway reads, and encodes with, without a process apart."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from services.gateway.ordinary_tokenizers import MAX_BYTES, is_ordinary, is_ordinary_file
from services.runtime.embedded_model import EMBEDDED_MODEL
from tests.gateway import tokenizers_of_each_kind as kinds

SPLIT: dict[str, Any] = {"type": "Split", "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    "kind",
    [kinds.byte_level, kinds.byte_fallback, kinds.metaspace, kinds.llama_2s, kinds.word_piece],
)
def test_tokenizers_of_every_kind_are_ordinary(kind: Callable[[], Tokenizer]) -> None:
    assert is_ordinary(kind())
    assert is_ordinary_file(kind().to_str().encode())


def test_the_embedded_models_is_read_here() -> None:
    assert is_ordinary_file((EMBEDDED_MODEL / "tokenizer.json").read_bytes())


@pytest.mark.parametrize(
    "content",
    [
        b" " * MAX_BYTES + b"{}",
        b"no JSON",
        b"[" * 100_000,
        b"[]",
        b'{"normalizer": null, "normalizer": null}',
        json.dumps({"pre_tokenizer": SPLIT | {"pattern": {"Regex": r"\s+$"}}}).encode(),
        b'{"decoder": [{"type": "Replace", "pattern": {"\\u0052egex": "(a+)+b"}}]}',
    ],
)
def test_a_file_that_could_take_long_to_read_is_none(content: bytes) -> None:
    assert not is_ordinary_file(content)


def words() -> Tokenizer:
    return Tokenizer(models.WordLevel({"u": 0}, unk_token="u"))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", normalizers.Sequence([normalizers.ByteLevel()] * 5)),
        ("pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Digits(True)] * 17)),
        ("pre_tokenizer", pre_tokenizers.Split("ab" * 40, "isolated")),
        ("model", models.Unigram([("u", 0.0), ("a" * 65, -1.0)], unk_id=0)),
        ("model", models.WordPiece({"u": 0}, unk_token="u", max_input_chars_per_word=101)),
    ],
)
def test_a_tokenizer_that_could_take_long_to_encode_is_none(part: str, value: Any) -> None:
    tokenizer = words()
    assert is_ordinary(tokenizer)
    setattr(tokenizer, part, value)
    assert not is_ordinary(tokenizer)


def test_what_both_parts_before_the_model_make_of_a_text_counts() -> None:
    tokenizer = words()
    tokenizer.normalizer = normalizers.Replace("a", "b" * 9)
    assert is_ordinary(tokenizer)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    assert not is_ordinary(tokenizer)

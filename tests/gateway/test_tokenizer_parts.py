"""A tokenizer that could make a gigabyte of a short text is refused by name of its part."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from services.gateway.tokenizer_parts import refuse_parts
from services.metadata.refusals import UnusableModel
from tests.gateway import tokenizers_of_each_kind as kinds

TEN_OF_ONE = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
WORDS = {"type": "WordLevel", "vocab": {"a": 0, "u": 1}, "unk_token": "u"}
PIECES = {
    "type": "WordPiece",
    "vocab": {"a": 0, "u": 1},
    "unk_token": "u",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
}
SPECIAL = {"id": "u", "type_id": 0}


def template(single: list[dict[str, Any]], ids: list[int]) -> dict[str, Any]:
    tokens = {"u": {"id": "u", "ids": ids, "tokens": ["u"] * len(ids)}}
    parts: dict[str, Any] = {"single": single, "pair": [], "special_tokens": tokens}
    return {"type": "TemplateProcessing", **parts}


def added(token_id: int, content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": token_id, "content": content} | flags


def sequence(name: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", name: list(parts)}


def charsmap(*texts: bytes) -> str:
    trie = bytes(8)
    return base64.b64encode(len(trie).to_bytes(4, "little") + trie + b"\0".join(texts)).decode()


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "replacements of replacements": (
        {"normalizer": sequence("normalizers", *[TEN_OF_ONE] * 9)},
        r"normalizer may make a text 1e\+09 times as long",
    ),
    "in sequences of sequences": (
        {"normalizer": sequence("normalizers", *[sequence("normalizers", TEN_OF_ONE)] * 2)},
        "normalizer may make a text 100 times as long",
    ),
    "something for nothing": (
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "x*"}, "content": "b" * 70}},
        "normalizer may make a text 71 times as long",
    ),
    "a map of characters": (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap(b"x" * 100)}},
        "normalizer may make a text 100 times as long",
    ),
    "what a decoder writes": (
        {"decoder": sequence("decoders", *[TEN_OF_ONE] * 3)},
        "decoder may make a text 1e\\+03 times as long",
    ),
    "a decoder that searches": (
        {"decoder": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}},
        "decoder replaces by a regular expression",
    ),
    "a long beginning": (
        {"normalizer": {"type": "Prepend", "prepend": "x" * 100_000}},
        "normalizer has prepend of 100000 characters",
    ),
    "many parts": (
        {"normalizer": sequence("normalizers", *[{"type": "NFKD"}] * 2000)},
        "normalizer has 2000 parts; it may have 64",
    ),
    "a template of many tokens": (
        {"post_processor": template([{"SpecialToken": SPECIAL}] * 500, [1])},
        "post_processor adds 500 tokens",
    ),
    "a token of many ids": (
        {"post_processor": template([{"SpecialToken": SPECIAL}], [1] * 500)},
        "post_processor adds 500 tokens",
    ),
    "bytes as letters of bytes as letters": (
        {"normalizer": sequence("normalizers", *[{"type": "ByteLevel"}] * 30)},
        r"normalizer may make a text 1.07e\+09 times as long",
    ),
    "a token that is a book": (
        {"model": WORDS | {"vocab": {"a" * 3000: 0, "u": 1}}},
        " has a token of 3000 characters; it may have 2048",
    ),
    "tokens that begin one another": (
        {"added_tokens": [added(number, "a" * number) for number in range(2, 500)]},
        " has an added token of 499 characters; it may have 128",
    ),
    "words of any length": (
        {"model": PIECES | {"max_input_chars_per_word": 1_000_000}},
        "model has max_input_chars_per_word of 1000000",
    ),
    "a long prefix": (
        {"model": PIECES | {"continuing_subword_prefix": "#" * 9000}},
        "model has continuing_subword_prefix of 9000 characters",
    ),
}


def tokenizer_with(**parts: Any) -> Tokenizer:
    content: dict[str, Any] = {"version": "1.0", "added_tokens": [], "model": WORDS}
    content |= dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder"))
    return Tokenizer.from_str(json.dumps(content | parts))


@pytest.mark.parametrize("what", HOSTILE)
def test_a_tokenizer_that_makes_much_of_little_is_refused(what: str) -> None:
    parts, refusal = HOSTILE[what]
    with pytest.raises(UnusableModel, match=f"^tokenizer.json:? ?{refusal.lstrip()}"):
        refuse_parts(tokenizer_with(**parts), Path("tokenizer.json"))


def test_a_part_that_is_no_larger_than_usual_is_taken() -> None:
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    normal = sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, spaces, {"type": "NFC"})
    refuse_parts(tokenizer_with(normalizer=normal, model=PIECES), Path("tokenizer.json"))


@pytest.mark.parametrize(
    "kind",
    [kinds.byte_level, kinds.byte_fallback, kinds.metaspace, kinds.llama_2s, kinds.word_piece],
)
def test_tokenizers_of_every_kind_are_taken(kind: Callable[[], Tokenizer]) -> None:
    refuse_parts(kind(), Path("tokenizer.json"))

"""What a tokenizer's parts may do with a text: a few times as long it may become, and no more.

A tokenizer.json is a program of the checkpoint's. Ten replacements in a row make a gigabyte of a
short prompt, and a process without memory is ended, whoever else it serves.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from services.metadata.refusals import UnusableModel

PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
# Families have up to ten.
MAX_PARTS = 64
# Families replace a space by a character of three bytes.
MAX_GROWTH = 64
MAX_AFFIX_BYTES = 64
MAX_WORD_CHARACTERS = 1000
# The event loop decodes them, and writes them out.
MAX_TOKEN_CHARACTERS = 2048
# They are looked for in every chat, by an expression that nests as deep as they begin one another.
MAX_ADDED_CHARACTERS = 128
# A letter of two bytes for a byte that is no letter.
BYTE_LEVEL_GROWTH = 2.0
_AFFIXES = ("prepend", "prefix", "suffix", "replacement", "content")
_MODEL_AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix")
_SEQUENCES = ("normalizers", "pretokenizers", "processors", "decoders")
# At the beginning of a map of characters: the size of its trie, which the texts stand behind.
_SIZE_BYTES = 4


def refuse_parts(tokenizer: Tokenizer, path: Path) -> None:
    """Raise UnusableModel, naming the part, where texts could grow out of bounds, or a word take
    time that grows with its square.
    """
    for name, part in parts_of(tokenizer).items():
        _refuse(f"{path}: {name}", list(steps(part)))
    model = tokenizer.model
    _refuse_affixes(f"{path}: model", {name: getattr(model, name, None) for name in _MODEL_AFFIXES})
    longest = getattr(model, "max_input_chars_per_word", 0) or 0
    if longest > MAX_WORD_CHARACTERS:
        raise UnusableModel(
            f"{path}: model has max_input_chars_per_word of {longest}; "
            f"it may be {MAX_WORD_CHARACTERS}"
        )
    added = (token.content for token in tokenizer.get_added_tokens_decoder().values())
    _refuse_long(f"{path} has an added token", added, MAX_ADDED_CHARACTERS)
    _refuse_long(f"{path} has a token", tokenizer.get_vocab(), MAX_TOKEN_CHARACTERS)


def parts_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """The parts that it has, as they are written in its file."""
    parts = {name: getattr(tokenizer, name) for name in PARTS}
    return {
        name: json.loads(part.__getstate__()) for name, part in parts.items() if part is not None
    }


def steps(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A part, or those that it is a sequence of, one after the other."""
    inner = next((part[key] for key in _SEQUENCES if isinstance(part.get(key), list)), None)
    if inner is None:
        yield part
        return
    for each in inner:
        yield from steps(each)


def growth(where: str, steps: list[dict[str, Any]]) -> float:
    """How many times as long a text may become by them."""
    most = 1.0
    for step in steps:
        if step["type"] == "Replace":
            most *= _growth(where, step)
        elif step["type"] == "Precompiled":
            most *= _growth_by_map(step["precompiled_charsmap"] or "")
        elif step["type"] == "ByteLevel":
            most *= BYTE_LEVEL_GROWTH
    return most


def _refuse(where: str, steps: list[dict[str, Any]]) -> None:
    if len(steps) > MAX_PARTS:
        raise UnusableModel(f"{where} has {len(steps)} parts; it may have {MAX_PARTS}")
    for step in steps:
        if step["type"] not in ("Replace", "Precompiled"):
            _refuse_affixes(where, {name: step.get(name) for name in _AFFIXES})
        _refuse_template(where, step)
    if (most := growth(where, steps)) > MAX_GROWTH:
        raise UnusableModel(
            f"{where} may make a text {most:.3g} times as long; {MAX_GROWTH} times is the most"
        )


def _refuse_long(what: str, tokens: Iterable[str], most: int) -> None:
    longest = max(map(len, tokens), default=0)
    if longest > most:
        raise UnusableModel(f"{what} of {longest} characters; it may have {most}")


def _refuse_template(where: str, step: dict[str, Any]) -> None:
    special = (step.get("special_tokens") or {}).values()
    counts = [len(step.get("single") or ()), *(len(token["ids"]) for token in special)]
    if max(counts) > MAX_PARTS:
        raise UnusableModel(f"{where} adds {max(counts)} tokens; it may add {MAX_PARTS}")


def _growth(where: str, replace: dict[str, Any]) -> float:
    pattern, count = replace["pattern"], len(replace["content"].encode())
    if "Regex" not in pattern:
        return max(1.0, count / max(1, len(pattern["String"].encode())))
    if where.endswith("decoder"):  # the event loop decodes
        raise UnusableModel(f"{where} replaces by a regular expression, which may never end")
    return 1.0 + count  # it may stand for nothing at all, between all characters


def _growth_by_map(encoded: str) -> float:
    blob = base64.b64decode(encoded)
    texts = blob[_SIZE_BYTES + int.from_bytes(blob[:_SIZE_BYTES], "little") :]
    return max(1.0, *(float(len(text)) for text in texts.split(b"\0")))


def _refuse_affixes(where: str, affixes: dict[str, Any]) -> None:
    for name, text in affixes.items():
        if isinstance(text, str) and len(text.encode()) > MAX_AFFIX_BYTES:
            raise UnusableModel(
                f"{where} has {name} of {len(text)} characters; it may have {MAX_AFFIX_BYTES} bytes"
            )

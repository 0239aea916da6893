"""What the gateway reads of a checkpoint directory: everything about text, nothing about weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from services.gateway.chat_templates import ChosenTemplate, choose_chat_template
from services.wire.errors import BadState

SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True)
class SamplingDefaults:
    """What the checkpoint's generation_config.json recommends, for what a request leaves open."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True)
class TextCheckpoint:
    """A checkpoint's tokenizer, chat template and defaults."""

    name: str
    model_type: str
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    sampling: SamplingDefaults
    # Only where the checkpoint asks for it and its tokenizer does not do so by itself.
    adds_bos_token_id: int | None
    # By name (`bos_token`, …), as chat templates know them.
    special_tokens: Mapping[str, str]
    chat_template: str | None
    # What to say of the model where there is none.
    chat_refusal: str
    tokenizer: Tokenizer


def read_checkpoint(directory: Path, *, name: str | None = None) -> TextCheckpoint:
    """Read the checkpoint in `directory`; its name is the directory's unless `name` says another.

    Raises BadState, naming the file, where one is missing or unusable.
    """
    if not directory.is_dir():
        raise BadState(f"model: there is no directory {directory}")
    config = _read_json(directory / "config.json")
    tokenizer_config = _read_json(directory / "tokenizer_config.json", optional=True)
    generation = _read_json(directory / "generation_config.json", optional=True)
    tokenizer = _read_tokenizer(directory / "tokenizer.json")
    special_tokens = _special_tokens(directory, tokenizer_config)
    chat_template = _chat_template(directory, tokenizer_config)
    return TextCheckpoint(
        name=name or directory.resolve().name,
        model_type=str(config.get("model_type", "")),
        vocab_size=_vocab_size(config, directory),
        eos_token_ids=_eos_token_ids(generation, config, tokenizer, special_tokens),
        sampling=_sampling_defaults(generation),
        adds_bos_token_id=_missing_bos(tokenizer, tokenizer_config, special_tokens),
        special_tokens=special_tokens,
        chat_template=chat_template.source,
        chat_refusal=chat_template.refusal,
        tokenizer=tokenizer,
    )


def _read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if optional:
            return {}
        raise BadState(f"model: {path} is missing") from error
    except (OSError, ValueError) as error:
        raise BadState(f"model: {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise BadState(f"model: {path} holds no JSON object")
    return content


def _read_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise BadState(f"model: {path} is missing; a checkpoint without a fast tokenizer cannot be served")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the boundary: tokenizers raises no other
        raise BadState(f"model: {path} is no tokenizer: {error}") from error
    # A training run may leave these on; a prompt is served whole or refused.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _vocab_size(config: dict[str, Any], directory: Path) -> int:
    vocab_size = config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
    if not isinstance(vocab_size, int) or vocab_size < 1:
        raise BadState(f"model: {directory / 'config.json'} has no vocab_size")
    return vocab_size


def _eos_token_ids(
    generation: dict[str, Any],
    config: dict[str, Any],
    tokenizer: Tokenizer,
    special_tokens: Mapping[str, str],
) -> tuple[int, ...]:
    for source in (generation, config, config.get("text_config", {})):
        found = source.get("eos_token_id")
        if found is not None:
            return tuple(found) if isinstance(found, list) else (int(found),)
    token_id = tokenizer.token_to_id(special_tokens.get("eos_token", ""))
    return () if token_id is None else (token_id,)


def _sampling_defaults(generation: dict[str, Any]) -> SamplingDefaults:
    known = {name: generation.get(name) for name in ("temperature", "top_k", "top_p")}
    return SamplingDefaults(**{name: value for name, value in known.items() if value is not None})


def _special_tokens(directory: Path, tokenizer_config: dict[str, Any]) -> dict[str, str]:
    entries = _read_json(directory / "special_tokens_map.json", optional=True) | tokenizer_config
    tokens: dict[str, str] = {}
    for name in SPECIAL_TOKEN_NAMES:
        entry = entries.get(name)
        content = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(content, str):
            tokens[name] = content
    return tokens


def _missing_bos(
    tokenizer: Tokenizer, tokenizer_config: dict[str, Any], special_tokens: Mapping[str, str]
) -> int | None:
    token_id: int | None = tokenizer.token_to_id(special_tokens.get("bos_token", ""))
    if not tokenizer_config.get("add_bos_token") or token_id in tokenizer.encode("").ids:
        return None
    return token_id


def _chat_template(directory: Path, tokenizer_config: dict[str, Any]) -> ChosenTemplate:
    return choose_chat_template(directory, tokenizer_config, lambda path: _read_json(path, optional=True))

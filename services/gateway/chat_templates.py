"""Finds the chat template of a checkpoint among the places and names that published ones use."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.gateway.chat import ChatTemplate
from services.wire.errors import BadState

DEFAULT = "default"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChosenTemplate:
    """The template that chats are rendered with, or what to say of the model where
    there is none.
    """

    source: str | None
    refusal: str = ""


def choose_chat_template(
    directory: Path,
    tokenizer_config: Mapping[str, Any],
    read_json: Callable[[Path], Mapping[str, Any]],
) -> ChosenTemplate:
    """The template named `default`, or the only one there is whatever its name.

    Files of templates count before tokenizer_config.json, as in transformers, and that before
    chat_template.json, which processors have beside it; `read_json` reads that, and nothing where
    it is missing. A template that cannot be used is no obstacle to a model's serving text: chats
    are refused and told why. Raises BadState, naming file and field, for what holds no template
    where one should be.
    """
    named: dict[str, str] = {}
    for found in _places(directory, tokenizer_config, read_json):
        named = {**found, **named}
        if DEFAULT in named:
            break
    if not named:
        return ChosenTemplate(None, "has no chat template")
    if DEFAULT not in named and len(named) > 1:
        names = ", ".join(map(repr, sorted(named)))
        return ChosenTemplate(
            None, f"has chat templates named {names}, and none of them is {DEFAULT!r}"
        )
    return _checked(named[DEFAULT] if DEFAULT in named else next(iter(named.values())))


def _places(
    directory: Path,
    tokenizer_config: Mapping[str, Any],
    read_json: Callable[[Path], Mapping[str, Any]],
) -> Iterator[dict[str, str]]:
    yield dict(_files(directory))
    yield _named(tokenizer_config.get("chat_template"), directory / "tokenizer_config.json")
    path = directory / "chat_template.json"
    yield _named(read_json(path).get("chat_template"), path)


def _files(directory: Path) -> Iterator[tuple[str, str]]:
    path = directory / "chat_template.jinja"
    # A link to nothing is read and refused, as an interrupted download leaves it.
    if path.is_file() or path.is_symlink():
        yield DEFAULT, _read(path)
    for path in sorted((directory / "additional_chat_templates").glob("*.jinja")):
        yield path.stem, _read(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # a byte order mark is no text
    except (OSError, UnicodeDecodeError) as error:
        raise BadState(f"model: {path} cannot be read as UTF-8: {error}") from error


def _named(value: Any, path: Path) -> dict[str, str]:
    """The templates that a field `chat_template` holds, in any of the shapes that transformers
    reads.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        return {DEFAULT: value}
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        value = {entry.get("name"): entry.get("template") for entry in value}
    if isinstance(value, dict) and all(
        isinstance(text, str) for pair in value.items() for text in pair
    ):
        return value
    raise BadState(
        f"model: {path}: chat_template must be a string, or a list of objects with a name and a "
        "template, both strings"
    )


def _checked(source: str) -> ChosenTemplate:
    if not source.strip():
        return ChosenTemplate(None, "has an empty chat template")
    try:
        ChatTemplate(source, {})
    except BadState as error:
        logger.warning("no chats are served: %s", error)
        return ChosenTemplate(None, f"has a chat template that cannot be used ({error})")
    return ChosenTemplate(source)

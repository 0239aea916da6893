"""Finds the chat templates of a checkpoint among the places and names that published ones use."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from services.gateway.chat import ChatTemplate
from services.metadata.bounded_files import read_bounded
from services.wire.errors import BadState, InvalidRequest
from services.wire.quoting import quoted

DEFAULT = "default"
# That renders chats with tools, where there is one.
TOOL_USE = "tool_use"
# Published ones have some ten of each. Reading a template takes a thousand times its size at most.
MAX_TEMPLATES = 64
MAX_CHARACTERS = 128 << 10  # of all together
MAX_BYTES = 4 * MAX_CHARACTERS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChatTemplates:
    """The templates of a checkpoint by their names: those that chats are rendered with, and what is
    wrong with the others.
    """

    sources: Mapping[str, str]
    faults: Mapping[str, str]
    # That renders a chat which names none; None where several could.
    default: str | None

    def choose(self, name: str, *, has_tools: bool) -> str:
        """The name of the template for a chat that asks for `name`, or for none with an empty one.

        Raises InvalidRequest with what is to be said of the model where there is none.
        """
        known = {*self.sources, *self.faults}
        if not known:
            raise InvalidRequest("has no chat template")
        chosen = name or (TOOL_USE if has_tools and TOOL_USE in known else self.default)
        if chosen is None:
            raise InvalidRequest(
                f"has chat templates named {_list_of(known)}, and none of them is {DEFAULT!r}; "
                "name one in chat.template_name"
            )
        if chosen not in known:
            raise InvalidRequest(
                f"has no chat template named {quoted(name)}; its own are {_list_of(known)}"
            )
        if chosen in self.faults:
            raise InvalidRequest(self.faults[chosen])
        return chosen


def _list_of(names: Collection[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def read_chat_templates(
    directory: Path,
    tokenizer_config: Mapping[str, Any],
    read_json: Callable[[Path], Mapping[str, Any]],
) -> ChatTemplates:
    """The templates of a checkpoint; the default is the one of that name, or the only one there is.

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
    _refuse_sizes(directory, named.values())
    faults = {name: fault for name, source in named.items() if (fault := _fault(source))}
    default = DEFAULT if DEFAULT in named else next(iter(named)) if len(named) == 1 else None
    return ChatTemplates(
        {name: source for name, source in named.items() if name not in faults}, faults, default
    )


def _places(
    directory: Path,
    tokenizer_config: Mapping[str, Any],
    read_json: Callable[[Path], Mapping[str, Any]],
) -> Iterator[dict[str, str]]:
    yield dict(_files(directory))
    yield _named(tokenizer_config.get("chat_template"), directory / "tokenizer_config.json")
    path = directory / "chat_template.json"
    yield _named(read_json(path).get("chat_template"), path)


def _refuse_sizes(directory: Path, sources: Collection[str]) -> None:
    num_characters = sum(map(len, sources))
    if len(sources) > MAX_TEMPLATES or num_characters > MAX_CHARACTERS:
        raise BadState(
            f"model: {directory} has {len(sources)} chat templates of {num_characters} characters; "
            f"it may have {MAX_TEMPLATES} of {MAX_CHARACTERS} together"
        )


def _files(directory: Path) -> Iterator[tuple[str, str]]:
    path = directory / "chat_template.jinja"
    # A link to nothing is read and refused, as an interrupted download leaves it.
    if path.exists() or path.is_symlink():
        yield DEFAULT, _read(path)
    further = (directory / "additional_chat_templates").glob("*.jinja")
    for path in sorted(islice(further, MAX_TEMPLATES + 1)):
        yield path.stem, _read(path)


def _read(path: Path) -> str:
    try:
        # A byte order mark is no text.
        return read_bounded(path, MAX_BYTES).decode("utf-8-sig")
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


def _fault(source: str) -> str:
    """What is wrong with a template; nothing where it can be used."""
    if not source.strip():
        return "has an empty chat template"
    try:
        ChatTemplate(source, {})
    except BadState as error:
        logger.warning("no chats are served: %s", error)
        return f"has a chat template that cannot be used ({error})"
    return ""

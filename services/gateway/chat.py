"""Renders a chat with the checkpoint's template, by the conventions of Hugging Face's
tokenizers.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, Protocol

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from services.gateway.metered import MeteredEnvironment
from services.wire.errors import BadState, InvalidRequest


class Template(Protocol):
    """What chats are rendered with."""

    @property
    def literals(self) -> frozenset[str]:
        """Every piece of text that it writes as it stands."""

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt that asks for the answer to `messages`; raises InvalidRequest."""


class ChatTemplate:
    """A compiled chat template; it runs in a sandbox, since checkpoints come from anywhere.

    Raises BadState when the template is none.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = MeteredEnvironment(
            filters={"tojson": _to_json},
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationBlocks, loopcontrols],
        )
        environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        self._special_tokens = dict(special_tokens)
        self._environment = environment
        try:
            tree = environment.parse(source)
            self.literals = frozenset(_literals(tree))
            self._template = environment.compiled(tree)
        except TemplateSyntaxError as error:
            raise BadState(
                f"the checkpoint's chat template, line {error.lineno}: {error.message}"
            ) from error
        except (
            Exception
        ) as error:  # the boundary: a source can be too deep for Jinja, or for Python
            raise BadState(f"the checkpoint's chat template: {_message_of(error)}") from error

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt that asks for the answer to `messages`, each with `role` and `content`.

        Raises InvalidRequest, with the template's own words, where it refuses them.
        """
        self._environment.begin()
        try:
            text: str = self._template.render(
                **self._special_tokens,
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=True,
            )
            text.encode()  # which a part of a character, made by the template, is not fit for
        except (
            Exception
        ) as error:  # the boundary: a template is a program, and raises whatever Python does
            raise InvalidRequest(
                f"chat: the model's chat template refuses the messages: {_message_of(error)}"
            ) from error
        return text


def _literals(tree: nodes.Template) -> Iterator[str]:
    """Every piece of text that a template writes as it stands."""
    for data in tree.find_all(nodes.TemplateData):
        yield data.data
    for constant in tree.find_all(nodes.Const):
        if isinstance(constant.value, str):
            yield constant.value


def _message_of(error: Exception) -> str:
    return str(error) or type(error).__name__


class _GenerationBlocks(Extension):
    """`{% generation %}` marks what an assistant said, which matters in training alone: its body is
    kept.
    """

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which would reach the model."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)

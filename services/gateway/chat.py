"""Renders a chat with the checkpoint's template, by the conventions of Hugging Face's tokenizers."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.wire.errors import BadState, InvalidRequest


class ChatTemplate:
    """A compiled chat template; it runs in a sandbox, since checkpoints come from anywhere.

    Raises BadState when the template is none.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlocks, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        self._special_tokens = dict(special_tokens)
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise BadState(f"the checkpoint's chat template, line {error.lineno}: {error.message}") from error

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt that asks for the answer to `messages`, each with `role` and `content`.

        Raises InvalidRequest, with the template's own words, where it refuses them.
        """
        try:
            return self._template.render(
                **self._special_tokens,
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=True,
            )
        # Templates fail with whatever Python raises when they meet a chat that their author did not think of.
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise InvalidRequest(f"chat: the model's chat template refuses the messages: {error}") from error


class _GenerationBlocks(Extension):
    """`{% generation %}` marks what an assistant said, which matters in training alone: its body is kept."""

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
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)

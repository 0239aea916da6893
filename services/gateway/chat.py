"""Renders a chat with the checkpoint's template, by the conventions of Hugging Face's
tokenizers.
"""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, Protocol

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from services.gateway.conversation import Conversation
from services.gateway.metered import MeteredEnvironment
from services.gateway.template_forms import TemplateForms
from services.wire.errors import BadState, InvalidRequest


class Template(Protocol):
    """What chats are rendered with."""

    @property
    def literals(self) -> frozenset[str]:
        """Every piece of text that it writes as it stands."""

    @property
    def names(self) -> frozenset[str]:
        """Every name of a field that it reads."""

    def render(self, conversation: Conversation) -> str:
        """The prompt that asks for what comes next; raises InvalidRequest."""


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
            self.names = frozenset(node.attr for node in tree.find_all(nodes.Getattr))
            self._template = environment.compiled(tree)
            self._forms = TemplateForms(self._tried, self.literals | self.names)
        except TemplateSyntaxError as error:
            raise BadState(
                f"the checkpoint's chat template, line {error.lineno}: {error.message}"
            ) from error
        except (
            Exception
        ) as error:  # the boundary: a source can be too deep for Jinja, or for Python
            raise BadState(f"the checkpoint's chat template: {_message_of(error)}") from error

    def render(self, conversation: Conversation) -> str:
        """The prompt that asks for what comes next in a conversation.

        Raises InvalidRequest, with the template's own words, where it refuses the messages.
        """
        messages = [self._forms.put(message) for message in conversation.messages]
        end = _Ending(messages[-1]) if conversation.continue_final_message else None
        try:
            text = self._rendered(
                messages,
                tools=conversation.tools or None,
                documents=conversation.documents or None,
                add_generation_prompt=conversation.add_generation_prompt,
                **conversation.arguments,
            )
        except (
            Exception
        ) as error:  # the boundary: a template is a program, and raises whatever Python does
            raise InvalidRequest(
                f"chat: the model's chat template refuses the messages: {_message_of(error)}"
            ) from error
        return text if end is None else end.cut(text)

    def _rendered(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        """Raises whatever the template does."""
        self._environment.begin()
        text: str = self._template.render(
            {**self._special_tokens, **variables, "messages": messages}
        )
        text.encode()  # which a part of a character, made by the template, is not fit for
        return text

    def _tried(self, messages: Sequence[Mapping[str, Any]]) -> str | None:
        try:
            return self._rendered(messages, tools=None, documents=None, add_generation_prompt=False)
        except Exception:  # noqa: BLE001 -- as above
            return None


class _Ending:
    """Where the words of the last message end in what a template makes of it, as transformers finds
    it: by a mark after them, whose last space shows whether the template takes spaces off.
    """

    def __init__(self, message: dict[str, Any]) -> None:
        self._mark = f"END_{secrets.token_hex(8)} "
        if isinstance(message["content"], str):
            self._words = message["content"]
            message["content"] += self._mark
        else:
            last = message["content"][-1]
            self._words = last["text"]
            last["text"] += self._mark

    def cut(self, text: str) -> str:
        """`text` up to there; raises InvalidRequest where the template left the words out."""
        before, mark, after = text.rpartition(self._mark.strip())
        if not mark or self._words.strip() not in before:
            raise InvalidRequest(
                "chat.continue_final_message: the model's chat template does not show the final "
                "message as it was written"
            )
        return before if after.startswith(" ") else before.rstrip()


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

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)  # what is set within is not seen after it


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

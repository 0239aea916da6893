"""The form in which a template takes messages, found by trying: published ones differ, and none
says so.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

from services.gateway.conversation import Message, ToolCall

WORD = "mosaicword"
# Of a part that was written as data, not read.
_AS_DATA = re.compile(rf"""['"]text['"]\s*:\s*['"]{WORD}""")
_USER = {"role": "user", "content": "a"}
# Some templates want exactly nine characters.
_CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": {}}}
_CALLING = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_BEFORE: Mapping[str, Sequence[Any]] = {
    "assistant": [_USER],
    "tool": [_USER, _CALLING],
    "function": [_USER, _CALLING],
}
_AFTER: Mapping[str, Sequence[Any]] = {"system": [_USER], "developer": [_USER]}

Rendering = Callable[[Sequence[Mapping[str, Any]]], str | None]


class TemplateForms:
    """Puts messages as transformers gives them to a template.

    A template that reads parts gets parts where they were sent, and one that reads nothing else
    gets them in any case; others get one text, the parts a line each. Arguments of a call are an
    object, or JSON for a template that cannot write an object. `rendering` renders messages and
    returns None where the template refuses them; `fields` are those that it reads at all.
    """

    def __init__(self, rendering: Rendering, fields: Collection[str]) -> None:
        self._rendering = rendering
        self._fields = fields
        self._reads = cache(self._found_to_read)
        self._objects_are_read = cache(self._found_to_read_objects)

    def put(self, message: Message) -> dict[str, Any]:
        """The message as the template takes it."""
        put: dict[str, Any] = {"role": message.role, "content": self._content(message)}
        if message.tool_calls:
            put["tool_calls"] = [self._call(call) for call in message.tool_calls]
        if message.tool_call_id:
            put["tool_call_id"] = message.tool_call_id
        if message.name:
            put["name"] = message.name
        if message.reasoning:  # by every name that templates have for it
            names = ("reasoning", "reasoning_content", "thinking")
            put.update(dict.fromkeys(names, message.reasoning))
        return put

    def _content(self, message: Message) -> str | list[dict[str, str]]:
        is_text = isinstance(message.content, str)
        role = message.role if message.role in (*_BEFORE, *_AFTER) else "user"
        reads_texts, reads_parts = self._reads(role)
        parts = [message.content] if isinstance(message.content, str) else message.content
        if reads_parts and not (is_text and reads_texts):
            return _parts(parts)
        return "\n".join(parts)

    def _call(self, call: ToolCall) -> dict[str, Any]:
        arguments: Any = call.arguments
        if not self._objects_are_read():
            arguments = json.dumps(arguments, ensure_ascii=False)
        function = {"name": call.name, "arguments": arguments}
        return {"id": call.id, "type": "function", "function": function}

    def _found_to_read(self, role: str) -> tuple[bool, bool]:
        """Whether texts are read, and parts, of messages of a role."""
        if "text" not in self._fields:  # of a part
            return True, False
        texts, parts = (self._is_read(role, content) for content in (WORD, _parts([WORD])))
        if not texts and not parts:  # no such role here, or not in this place
            return (True, False) if role == "user" else self._reads("user")
        return texts, parts

    def _is_read(self, role: str, content: Any) -> bool:
        message = {"role": role, "content": content, "tool_call_id": _CALL["id"], "name": "f"}
        shown = self._rendering([*_BEFORE.get(role, ()), message, *_AFTER.get(role, ())])
        return shown is not None and WORD in shown and _AS_DATA.search(shown) is None

    def _found_to_read_objects(self) -> bool:
        given = {WORD: 1}
        as_object, as_text = (
            self._rendering([_USER, {**_CALLING, "tool_calls": [_with_arguments(arguments)]}])
            for arguments in (given, json.dumps(given))
        )
        if as_text is None or WORD not in as_text:
            return True
        return as_object is not None and str(given) not in as_object


def _parts(texts: Sequence[str]) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def _with_arguments(arguments: Any) -> dict[str, Any]:
    return {**_CALL, "function": {"name": "f", "arguments": arguments}}

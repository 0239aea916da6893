"""Reads a chat of a request: what can be said at once, and, apart from the loop, what is JSON."""

import json
import math
from collections.abc import Collection
from typing import Any, NoReturn

from moesaic.v1 import generation_pb2 as pb
from services.gateway.conversation import Conversation, Message, ToolCall
from services.wire.errors import InvalidRequest
from services.wire.quoting import quoted
from services.wire.ranges import check_count

MAX_TOOLS = 256
MAX_DOCUMENTS = 1024
# Of one message.
MAX_PARTS = 1024
MAX_TOOL_CALLS = 128
MAX_ARGUMENTS_BYTES = 16 << 10
# Of objects and lists in one another.
MAX_DEPTH = 32
# What a template is given by other fields, and what it is given to compute with.
RESERVED = frozenset(
    (
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        *("chat_template", "tokenize", "raise_exception", "strftime_now", "namespace", "dict"),
        *("range", "lipsum", "cycler", "joiner", "loop", "self", "caller", "varargs", "kwargs"),
    )
)


def check_chat(chat: pb.Chat) -> None:
    """Raise InvalidRequest, naming the field, where a chat is not as it has to be, but for what is
    JSON in it.
    """
    if chat.continue_final_message and chat.add_generation_prompt:
        raise InvalidRequest(
            "chat.add_generation_prompt cannot be set together with chat.continue_final_message"
        )
    check_count("chat.tools_json", chat.tools_json, MAX_TOOLS)
    check_count("chat.documents_json", chat.documents_json, MAX_DOCUMENTS)
    num_bytes = len(chat.template_arguments_json.encode())
    if num_bytes > MAX_ARGUMENTS_BYTES:
        raise InvalidRequest(
            f"chat.template_arguments_json has {num_bytes} bytes; the limit is "
            f"{MAX_ARGUMENTS_BYTES}"
        )
    for index, message in enumerate(chat.messages):
        _check_message(f"chat.messages[{index}]", message)


def read_chat(chat: pb.Chat, special_tokens: Collection[str]) -> Conversation:
    """The conversation in a chat that was checked; `special_tokens` are the names by which the
    template knows some.

    Raises InvalidRequest, naming the field, for what is no JSON, or nested too deep.
    """
    arguments = {}
    if chat.template_arguments_json:
        arguments = _object("chat.template_arguments_json", chat.template_arguments_json)
    for name in arguments:
        if name in RESERVED or name in special_tokens:
            raise InvalidRequest(
                f"chat.template_arguments_json: {quoted(name)} is no argument of a template's own"
            )
    return Conversation(
        messages=[
            _message(f"chat.messages[{index}]", message)
            for index, message in enumerate(chat.messages)
        ],
        tools=_objects("chat.tools_json", chat.tools_json),
        documents=_objects("chat.documents_json", chat.documents_json),
        arguments=arguments,
        continue_final_message=chat.continue_final_message,
        add_generation_prompt=(
            chat.add_generation_prompt
            if chat.HasField("add_generation_prompt")
            else not chat.continue_final_message
        ),
    )


def _check_message(field: str, message: pb.ChatMessage) -> None:
    if not message.role:
        raise InvalidRequest(f"{field}.role must not be empty")
    if message.content and message.parts:
        raise InvalidRequest(f"{field} has content and parts; it must have one of them")
    if message.tool_calls and message.role != "assistant":
        raise InvalidRequest(f"{field}.tool_calls: the role is not assistant")
    check_count(f"{field}.parts", message.parts, MAX_PARTS)
    check_count(f"{field}.tool_calls", message.tool_calls, MAX_TOOL_CALLS)


def _message(field: str, message: pb.ChatMessage) -> Message:
    return Message(
        role=message.role,
        content=list(message.parts) or message.content,
        tool_calls=[
            _tool_call(f"{field}.tool_calls[{index}]", call)
            for index, call in enumerate(message.tool_calls)
        ],
        tool_call_id=message.tool_call_id,
        name=message.name,
        reasoning=message.reasoning,
    )


def _tool_call(field: str, call: pb.ToolCall) -> ToolCall:
    if not call.name:
        raise InvalidRequest(f"{field}.name must not be empty")
    # A call without arguments is sent with none by some.
    written = call.arguments_json.strip() or "{}"
    return ToolCall(call.id, call.name, _object(f"{field}.arguments_json", written))


def _objects(field: str, written: Collection[str]) -> list[dict[str, Any]]:
    return [_object(f"{field}[{index}]", text) for index, text in enumerate(written)]


def _object(field: str, written: str) -> dict[str, Any]:
    try:
        value = json.loads(written, parse_constant=_no_constant)
    except RecursionError:
        raise InvalidRequest(f"{field} is nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:
        raise InvalidRequest(f"{field} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"{field} must be a JSON object")
    _check_value(field, value, MAX_DEPTH)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _check_value(field: str, value: Any, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth == 0:
            raise InvalidRequest(f"{field} is nested deeper than {MAX_DEPTH}")
        for inner in value:
            _check_value(field, inner, depth - 1)
        if isinstance(value, dict):
            for inner in value.values():
                _check_value(field, inner, depth - 1)
    elif isinstance(value, str) and not value.isascii():
        _check_text(field, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(f"{field} has a number that is too large")


def _check_text(field: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{field} has half a character (a lone surrogate)") from None

"""Messages of a chat as OpenAI's API has them, and as GenerateRequest does."""

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from moesaic.v1 import generation_pb2 as pb
from services.gateway.http.bodies import Body, Objects
from services.gateway.http.errors import BadField

TEXT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "text"],
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
            },
        },
        {"type": "null"},
    ]
}


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"] = "text"
    text: str


def _content(value: Any) -> str | list[TextPart] | None:
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("it should be a string, a list of parts or null")
    return [_part(index, part) for index, part in enumerate(value)]


def _part(index: int, part: Any) -> TextPart:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("text") if isinstance(part, dict) else None
    if kind != "text":
        named = f"of the type {kind!r:.40}" if isinstance(kind, str) else "without a type"
        raise ValueError(f"part {index} is {named}; only text is served")
    if not isinstance(text, str):
        raise ValueError(f"part {index} has no text")
    return TextPart.model_validate(part)


Content = Annotated[Any, BeforeValidator(_content), WithJsonSchema(TEXT_SCHEMA)]


class CalledFunction(Body):
    """What a call of a tool calls."""

    name: str
    # A JSON object, mostly as a string.
    arguments: str | dict[str, Any] = "{}"


class CalledTool(Body):
    """A call of a tool that an assistant made."""

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Body):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = None
    name: str | None = None
    tool_calls: Annotated[list[CalledTool], Field(max_length=128)] | None = None
    tool_call_id: str | None = None
    reasoning: str | None = None
    # As others call it.
    reasoning_content: str | None = None
    # What an assistant said in place of an answer.
    refusal: str | None = None


Messages = Annotated[list[Message], Field(min_length=1, fail_fast=True)]


class TemplateBody(Body):
    """A request that gives a template something beside the messages."""

    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: Objects | None = None
    tools: Objects | None = None


def written_chat(messages: list[Message], given: TemplateBody) -> pb.Chat:
    """A conversation as GenerateRequest has it. Raises BadField for a message that says nothing."""
    arguments = given.chat_template_kwargs
    return pb.Chat(
        messages=[_written_message(index, message) for index, message in enumerate(messages)],
        tools_json=[_json(tool) for tool in given.tools or ()],
        documents_json=[_json(document) for document in given.documents or ()],
        template_arguments_json=_json(arguments) if arguments else "",
        add_generation_prompt=given.add_generation_prompt,
        continue_final_message=bool(given.continue_final_message),
    )


def _written_message(index: int, message: Message) -> pb.ChatMessage:
    content = message.content
    if content is None and message.refusal is not None:
        content = message.refusal
    if content is None and not message.tool_calls:
        raise BadField(f"messages[{index}].content is missing", "messages")
    return pb.ChatMessage(
        # Templates know the older name of it.
        role="system" if message.role == "developer" else message.role,
        content=content if isinstance(content, str) else "",
        parts=[part.text for part in content] if isinstance(content, list) else (),
        tool_calls=[_written_call(call) for call in message.tool_calls or ()],
        tool_call_id=message.tool_call_id or "",
        name=message.name or "",
        reasoning=message.reasoning or message.reasoning_content or "",
    )


def _written_call(call: CalledTool) -> pb.ToolCall:
    arguments = call.function.arguments
    return pb.ToolCall(
        id=call.id,
        name=call.function.name,
        arguments_json=arguments if isinstance(arguments, str) else json.dumps(arguments),
    )


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)

"""Chats as clients send them are rendered as transformers renders them, with tools and all."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from moesaic.v1 import generation_pb2 as pb
from services.gateway.chat import ChatTemplate
from services.gateway.chat_reading import check_chat, read_chat
from services.wire.errors import InvalidRequest
from tests.gateway.published_templates import PUBLISHED
from tests.gateway.tokenizers_of_each_kind import byte_level

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Says what the weather is: é < 5 & 'so'",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "where"},
                "days": {"type": "array", "items": {"type": "integer"}},
                "unit": {"type": "string", "enum": ["C", "F"]},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "now",
        "description": "The time",
        "parameters": {"type": "object", "properties": {}},
    },
}
CALL = {
    "id": "call12345",
    "type": "function",
    "function": {
        "name": "get_weather",
        "arguments": {"city": "Köln", "days": [1, 2.5], "now": True},
    },
}
USER = {"role": "user", "content": "How is the weather?"}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": '{"degrees": 21}', "tool_call_id": "call12345"}
THINKING = {"role": "assistant", "content": "Fine.", "reasoning": "They ask\nfor it."}

# What is asked for, as transformers takes it.
CHATS: dict[str, dict[str, Any]] = {
    "a question": {"conversation": [USER]},
    "a system's words": {"conversation": [{"role": "system", "content": " Be short. "}, USER]},
    "a developer's words": {"conversation": [{"role": "developer", "content": "Be short."}, USER]},
    "turns": {"conversation": [USER, {"role": "assistant", "content": "Fine. \n"}, USER]},
    "thoughts": {"conversation": [USER, THINKING, USER]},
    "thoughts in the words": {
        "conversation": [
            USER,
            {"role": "assistant", "content": "<think>\nhm\n</think>\n\nso"},
            USER,
        ]
    },
    "no prompt to go on": {"conversation": [USER], "add_generation_prompt": False},
    "no thinking": {"conversation": [USER], "enable_thinking": False},
    "effort": {"conversation": [USER], "reasoning_effort": "high"},
    "a name": {"conversation": [{**USER, "name": "ada"}]},
    "tools": {"conversation": [USER], "tools": [WEATHER, CLOCK]},
    "tools elsewhere": {
        "conversation": [{"role": "system", "content": "Be short."}, USER],
        "tools": [WEATHER],
        "tools_in_user_message": False,
        "date_string": "1 Jan 2026",
    },
    "a call": {"conversation": [USER, CALLING, RESULT], "tools": [WEATHER]},
    "a thought call": {
        "conversation": [USER, {**CALLING, "reasoning": "hm"}, RESULT],
        "tools": [WEATHER],
    },
    "calls": {
        "conversation": [
            USER,
            {**CALLING, "content": "Let me see.", "tool_calls": [CALL, CALL]},
            RESULT,
        ]
    },
    "documents": {
        "conversation": [USER],
        "documents": [{"title": "A", "text": "é\n<b>"}, {"text": "c", "n": 1.5}],
    },
    "goes on": {
        "conversation": [USER, {"role": "assistant", "content": "It is  "}],
        "continue_final_message": True,
    },
    "goes on with nothing": {
        "conversation": [USER, {"role": "assistant", "content": ""}],
        "continue_final_message": True,
    },
    "goes on as a user": {"conversation": [USER], "continue_final_message": True},
}
OWN_FIELDS = {
    *("conversation", "tools", "documents", "continue_final_message", "add_generation_prompt"),
}
# Templates that take contents, or arguments of calls, in but one form.
PARTS_ALONE, TEXT_ARGUMENTS = {"SmolVLM"}, {"DeepSeek V3"}


def chat_of(wanted: Mapping[str, Any]) -> pb.Chat:
    """What a client of ours sends for it."""
    chat = pb.Chat(
        messages=[_message(message) for message in wanted["conversation"]],
        tools_json=[json.dumps(tool) for tool in wanted.get("tools", ())],
        documents_json=[json.dumps(document) for document in wanted.get("documents", ())],
        continue_final_message=wanted.get("continue_final_message", False),
    )
    if "add_generation_prompt" in wanted:
        chat.add_generation_prompt = wanted["add_generation_prompt"]
    arguments = {name: wanted[name] for name in wanted.keys() - OWN_FIELDS}
    if arguments:
        chat.template_arguments_json = json.dumps(arguments)
    return chat


def _message(message: Mapping[str, Any]) -> pb.ChatMessage:
    content = message["content"]
    calls = [
        pb.ToolCall(
            id=call["id"],
            name=call["function"]["name"],
            arguments_json=json.dumps(call["function"]["arguments"]),
        )
        for call in message.get("tool_calls", ())
    ]
    return pb.ChatMessage(
        role=message["role"],
        content=content if isinstance(content, str) else "",
        parts=[] if isinstance(content, str) else [part["text"] for part in content],
        tool_calls=calls,
        **{
            name: message[name] for name in ("tool_call_id", "name", "reasoning") if name in message
        },
    )


def by_us(template: str, wanted: Mapping[str, Any]) -> str | None:
    """The prompt; None where the template refuses."""
    try:
        return compiled(template).render(read_chat(chat_of(wanted), SPECIAL.keys()))
    except InvalidRequest:
        return None


@cache
def compiled(template: str) -> ChatTemplate:
    return ChatTemplate(template, SPECIAL)


@cache
def fast() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=byte_level(), **SPECIAL)


def by_transformers(template: str, wanted: Mapping[str, Any]) -> str | None:
    defaults = {"add_generation_prompt": not wanted.get("continue_final_message")}
    try:
        return fast().apply_chat_template(  # type: ignore[return-value]
            **{**defaults, **wanted}, chat_template=template, tokenize=False
        )
    except Exception:  # noqa: BLE001 -- whatever a template raises
        return None


def in_form(name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """As who knows the template would write it for transformers."""
    conversation = wanted["conversation"]
    if name in PARTS_ALONE:
        conversation = [
            {**message, "content": [{"type": "text", "text": message["content"]}]}
            for message in conversation
        ]
    if name in TEXT_ARGUMENTS:
        conversation = [_with_text_arguments(message) for message in conversation]
    return {**wanted, "conversation": conversation}


def _with_text_arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if "tool_calls" not in message:
        return message
    calls = [
        {
            **call,
            "function": {
                **call["function"],
                "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
            },
        }
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


@pytest.mark.parametrize("wanted", CHATS.values(), ids=CHATS)
@pytest.mark.parametrize(("name", "template"), PUBLISHED.items(), ids=PUBLISHED)
def test_a_chat_is_rendered_as_by_transformers(
    name: str, template: str, wanted: dict[str, Any]
) -> None:
    assert by_us(template, wanted) == by_transformers(template, in_form(name, wanted))


def test_the_templates_refuse_no_more_than_they_say() -> None:
    refused = {
        (name, chat)
        for name, template in PUBLISHED.items()
        for chat, wanted in CHATS.items()
        if by_us(template, wanted) is None
    }
    assert refused == {
        ("Llama 3.1", "calls"),  # one at a time
        ("Mistral", "a developer's words"),
        ("Command R", "a developer's words"),
    }


PARTS = {"role": "user", "content": [{"type": "text", "text": t} for t in ("How is", "it?")]}


@pytest.mark.parametrize(("name", "template"), PUBLISHED.items(), ids=PUBLISHED)
def test_parts_stay_parts_where_a_template_reads_them_and_are_lines_elsewhere(
    name: str, template: str
) -> None:
    reads_parts = name in {"SmolVLM", "GLM 4.5"}
    given = PARTS if reads_parts else {"role": "user", "content": "How is\nit?"}
    assert by_us(template, {"conversation": [PARTS]}) == by_transformers(
        template, {"conversation": [given]}
    )


def test_what_a_template_reads_is_found_for_each_role() -> None:
    template = """\
{%- for m in messages %}{{ m.role }}:
{%- if m.role == 'user' %}{% for p in m.content %}{{ p.text }}|{% endfor %}
{%- else %}{{ m.content + '.' }}{% endif %}
{%- endfor %}"""
    conversation = [{**PARTS, "role": "system"}, PARTS, {**PARTS, "role": "assistant"}]
    assert (
        by_us(template, {"conversation": conversation})
        == "system:How is\nit?.user:How is|it?|assistant:How is\nit?."
    )


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ messages[1].tool_calls[0].function.arguments | tojson }}", '{"a": "ä"}'),
        ("{{ messages[1].tool_calls[0]['function']['arguments'] + '' }}", '{"a": "ä"}'),
        ("{{ messages[1].tool_calls[0].function.arguments }}", '{"a": "ä"}'),
        ("{{ messages[1].tool_calls[0].function.arguments.items() | list }}", "[('a', 'ä')]"),
        ("{{ messages[1].tool_calls[0].function.name }}", "get_weather"),
    ],
)
def test_arguments_of_a_call_have_the_form_that_the_template_can_write(
    template: str, expected: str
) -> None:
    call = {**CALL, "function": {"name": "get_weather", "arguments": {"a": "ä"}}}
    assert by_us(template, {"conversation": [USER, {**CALLING, "tool_calls": [call]}]}) == expected


def test_what_is_set_in_a_part_for_training_is_not_seen_after_it() -> None:
    template = "{% generation %}{% set a = 1 %}{{ a }}{% endgeneration %}{{ a }}"
    assert by_us(template, CHATS["a question"]) == by_transformers(template, CHATS["a question"])


def test_a_message_that_the_template_hides_cannot_be_gone_on_with() -> None:
    template = "{{ messages[0].content }}"
    chat = chat_of(CHATS["goes on"])
    with pytest.raises(InvalidRequest, match="does not show the final message as it was written"):
        ChatTemplate(template, SPECIAL).render(read_chat(chat, ()))


def test_the_last_part_is_gone_on_with() -> None:
    wanted = {"conversation": [PARTS], "continue_final_message": True}
    assert by_us(PUBLISHED["SmolVLM"], wanted) == "User: How is it?"


UNCHECKED: dict[str, tuple[pb.Chat, str]] = {
    "content twice": (
        pb.Chat(messages=[pb.ChatMessage(role="user", content="a", parts=["b"])]),
        r"chat.messages\[0\] has content and parts; it must have one of them",
    ),
    "many parts": (
        pb.Chat(messages=[pb.ChatMessage(role="user", parts=[""] * 1025)]),
        r"messages\[0\].parts has 1025 elements; the limit is 1024",
    ),
    "calls of a user": (
        pb.Chat(messages=[pb.ChatMessage(role="user", tool_calls=[pb.ToolCall(name="f")])]),
        r"messages\[0\].tool_calls: the role is not assistant",
    ),
    "many calls": (
        pb.Chat(messages=[pb.ChatMessage(role="assistant", tool_calls=[pb.ToolCall()] * 129)]),
        r"messages\[0\].tool_calls has 129 elements; the limit is 128",
    ),
    "many tools": (pb.Chat(tools_json=[""] * 257), "chat.tools_json has 257 elements; the limit"),
    "many documents": (pb.Chat(documents_json=[""] * 1025), "chat.documents_json has 1025 elem"),
    "long arguments": (
        pb.Chat(template_arguments_json=" " * 16_385),
        "chat.template_arguments_json has 16385 bytes; the limit is 16384",
    ),
}


@pytest.mark.parametrize(("chat", "said"), UNCHECKED.values(), ids=UNCHECKED)
def test_a_chat_beyond_a_limit_is_refused_by_its_name(chat: pb.Chat, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        check_chat(chat)


NESTED = '{"a":' * 33 + "1" + "}" * 33
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a tool that is no JSON": ({"tools_json": ["{}", "{"]}, r"chat.tools_json\[1\] is no JSON: "),
    "a tool that is no object": ({"tools_json": ["[1]"]}, r"tools_json\[0\] must be a JSON object"),
    "a document of a number": ({"documents_json": ["7"]}, r"documents_json\[0\] must be a JSON"),
    "a deep tool": ({"tools_json": [NESTED]}, "is nested deeper than 32"),
    "a very deep tool": ({"tools_json": ['{"a":' * 100_000]}, "is nested deeper than 32"),
    "no number": ({"tools_json": ['{"a": NaN}']}, "NaN is no number of JSON"),
    "a large number": ({"tools_json": ['{"a": [1e999]}']}, "a number that is too large"),
    "a very large number": ({"tools_json": ['{"a": ' + "9" * 5000 + "}"]}, "is no JSON"),
    "half a character": ({"tools_json": ['{"a": {"\\ud800": 1}}']}, "has half a character"),
    "arguments that are no object": ({"template_arguments_json": '"a"'}, "must be a JSON object"),
    **{
        f"an argument {name}": (
            {"template_arguments_json": json.dumps({name: None})},
            f"chat.template_arguments_json: '{name}' is no argument",
        )
        for name in ("messages", "tools", "add_generation_prompt", "bos_token", "raise_exception")
    },
}


@pytest.mark.parametrize(("fields", "said"), WRONG.values(), ids=WRONG)
def test_what_is_no_json_or_too_much_is_refused_by_its_name(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read_chat(pb.Chat(messages=[pb.ChatMessage(role="user")], **fields), SPECIAL)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[]", r"messages\[0\]\.tool_calls\[0\]\.arguments_json must be a JSON object"),
        ('{"a"', r"messages\[0\]\.tool_calls\[0\]\.arguments_json is no JSON"),
    ],
)
def test_arguments_of_a_call_that_are_no_object_are_refused(written: str, said: str) -> None:
    call = pb.ToolCall(name="f", arguments_json=written)
    message = pb.ChatMessage(role="assistant", tool_calls=[call])
    with pytest.raises(InvalidRequest, match=said):
        read_chat(pb.Chat(messages=[message]), ())


def test_a_call_without_a_name_is_refused() -> None:
    message = pb.ChatMessage(role="assistant", tool_calls=[pb.ToolCall()])
    with pytest.raises(InvalidRequest, match=r"tool_calls\[0\].name must not be empty"):
        read_chat(pb.Chat(messages=[message]), ())


def test_a_call_without_arguments_has_none() -> None:
    message = pb.ChatMessage(role="assistant", tool_calls=[pb.ToolCall(name="f")])
    assert read_chat(pb.Chat(messages=[message]), ()).messages[0].tool_calls[0].arguments == {}

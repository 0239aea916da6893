"""Every field of OpenAI's API is one of GenerateRequest, harmless, or refused by name."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesaic.v1 import common_pb2
from moesaic.v1 import generation_pb2 as pb
from services.gateway.http.bodies import (
    MAX_ERROR_CHARACTERS,
    MAX_ERRORS,
    Body,
    read_body,
    unknown_fields,
)
from services.gateway.http.errors import BadField, failure_told
from services.gateway.http.fields import HARMLESS, REFUSED, ChatBody, TextBody
from services.gateway.http.token_bodies import DetokenizeBody, TokenizeBody
from services.gateway.http.translation import chat_request, text_requests

MESSAGES = [{"role": "user", "content": "hello"}]


def chat_of(**fields: Any) -> pb.GenerateRequest:
    body = json.dumps({"messages": MESSAGES} | fields).encode()
    return chat_request(read_body(ChatBody, body))


def text_of(**fields: Any) -> pb.GenerateRequest:
    (request,) = texts_of(**fields)
    return request


def texts_of(**fields: Any) -> list[pb.GenerateRequest]:
    return text_requests(read_body(TextBody, json.dumps({"prompt": "a"} | fields).encode()))


def refusal_of(**fields: Any) -> BadField:
    with pytest.raises(BadField) as refusal:
        (chat_of if "messages" in fields else texts_of)(**fields)
    return refusal.value


@pytest.mark.parametrize("asked", [chat_of, text_of])
def test_what_both_have_is_the_field_that_grpc_has(asked: Any) -> None:
    request = asked(
        model="m", max_tokens=7, n=3, temperature=0.5, top_p=0.9, top_k=-1, min_p=0.1, seed=-1,
        presence_penalty=1, frequency_penalty=-1, repetition_penalty=1.5,
        logit_bias={"5": -100, "6": 2.5}, allowed_token_ids=[5, 6], stop="x", stop_token_ids=[3],
        ignore_eos=True, min_tokens=2, include_stop_str_in_output=True, skip_special_tokens=False,
        return_routed_experts=True, request_id="r", priority=-5,
    )  # fmt: skip
    sampling = common_pb2.SamplingParameters(
        temperature=0.5, top_p=0.9, top_k=0, min_p=0.1, seed=2**64 - 1, presence_penalty=1,
        frequency_penalty=-1, repetition_penalty=1.5, logit_bias={5: -100, 6: 2.5},
        allowed_token_ids=[5, 6],
    )  # fmt: skip
    stop = common_pb2.StopConditions(
        max_new_tokens=7, stop_strings=["x"], stop_token_ids=[3], ignore_eos=True,
        min_new_tokens=2, include_stop_string=True,
    )  # fmt: skip
    request.ClearField("prompt")
    assert request == pb.GenerateRequest(
        model="m", num_choices=3, sampling=sampling, stop=stop, return_routed_experts=True,
        request_id="r", priority=pb.PRIORITY_HIGH, keep_special_tokens=True,
    )  # fmt: skip


def test_what_is_left_open_or_null_is_left_to_the_model() -> None:
    nothing = dict.fromkeys(
        ["model", "n", "temperature", "seed", "stop", "logit_bias", "stream_options", "min_tokens"]
    )
    for fields in ({}, nothing):
        request = chat_of(**fields)
        request.ClearField("prompt")
        assert request == pb.GenerateRequest(
            sampling=common_pb2.SamplingParameters(), stop=common_pb2.StopConditions()
        )
    assert text_of().stop.max_new_tokens == 16
    assert not text_of(max_tokens=None).stop.HasField("max_new_tokens")


def test_the_newer_limit_of_a_chat_goes_before_the_older() -> None:
    assert chat_of(max_tokens=3, max_completion_tokens=5).stop.max_new_tokens == 5


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_a_prompt_has_four_shapes(prompt: Any, expected: list[Any]) -> None:
    requests = texts_of(prompt=prompt, request_id="r")
    assert [request.text or [*request.token_ids.ids] for request in requests] == expected
    assert len({request.request_id for request in requests}) == len(requests)


@pytest.mark.parametrize(
    "prompt", [None, 5, {}, [], ["a", 1], [1, "a"], [[1], "a"], [1.5], [True], [-1], [[-1]],
               [2**32], ["a"] * 129]
)  # fmt: skip
def test_a_prompt_of_another_shape_is_refused_by_name(prompt: Any) -> None:
    assert refusal_of(prompt=prompt).param == "prompt"


def test_logprobs_are_asked_for_as_each_route_does() -> None:
    assert not chat_of(logprobs=False).HasField("top_logprobs")
    assert chat_of(logprobs=True).HasField("top_logprobs")
    assert chat_of(logprobs=True, top_logprobs=20).top_logprobs == 20
    assert text_of(logprobs=0).HasField("top_logprobs")
    request = text_of(logprobs=5, echo=True)
    assert (request.top_logprobs, request.prompt_logprobs) == (5, True)
    assert refusal_of(messages=MESSAGES, top_logprobs=3).param == "top_logprobs"
    assert refusal_of(messages=MESSAGES, logprobs=True, top_logprobs=21).param == "top_logprobs"


def test_a_chat_is_translated_with_all_that_its_messages_say() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    request = chat_of(
        messages=[
            {"role": "developer", "content": "be"},
            {"role": "user", "name": "ann",
             "content": [{"type": "text", "text": "a"}, {"text": "b", "type": "text"}]},
            {"role": "assistant", "content": None, "tool_calls": [call],
             "reasoning_content": "hm"},
            {"role": "tool", "tool_call_id": "c", "content": "2"},
        ],
        tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="none",
        documents=[{"title": "ü"}], chat_template_kwargs={"enable_thinking": False},
        continue_final_message=True, add_generation_prompt=False,
    )  # fmt: skip
    assert request.chat == pb.Chat(
        messages=[
            pb.ChatMessage(role="system", content="be"),
            pb.ChatMessage(role="user", parts=["a", "b"], name="ann"),
            pb.ChatMessage(
                role="assistant", reasoning="hm",
                tool_calls=[pb.ToolCall(id="c", name="f", arguments_json='{"a": 1}')],
            ),
            pb.ChatMessage(role="tool", tool_call_id="c", content="2"),
        ],
        tools_json=['{"type": "function", "function": {"name": "f"}}'],
        documents_json=['{"title": "ü"}'],
        template_arguments_json='{"enable_thinking": false}',
        continue_final_message=True, add_generation_prompt=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
         "messages[0].content: part 0 is of the type 'image_url'; only text is served"),
        ({"role": "user", "content": [{"text": "a"}]}, "part 0 is without a type"),
        ({"role": "user", "content": [{"type": "text"}]}, "part 0 has no text"),
        ({"role": "user"}, "messages[0].content is missing"),
        ({"role": "robot", "content": "a"}, "messages[0].role"),
        ({"content": "a"}, "messages[0].role"),
        ({"role": "user", "content": 5}, "messages[0].content"),
    ],
)  # fmt: skip
def test_a_message_that_is_not_served_is_refused_by_its_place(message: Any, said: str) -> None:
    refusal = refusal_of(messages=[message])
    assert said in str(refusal)
    assert refusal.param == "messages"


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_not_served_is_refused_by_name_unless_it_changes_nothing(name: str) -> None:
    for neutral in REFUSED[name]:
        chat_of(**{name: neutral})
        text_of(**{name: neutral})
    refusal = refusal_of(**{name: {"type": "json_object"}})
    assert (refusal.param, name in str(refusal)) == (name, True)
    assert ("structured_outputs" in str(refusal)) == (
        name.startswith("guided_") or name == "structured_outputs"
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools"),
        ({"messages": MESSAGES, "tools": [{}], "tool_choice": "auto"}, "tools"),
        ({"messages": MESSAGES, "tool_choice": "required"}, "tool_choice"),
        ({"messages": MESSAGES, "tool_choice": {"function": {"name": "f"}}}, "tool_choice"),
        ({"messages": MESSAGES, "echo": True}, "echo"),
        ({"messages": MESSAGES, "add_special_tokens": True}, "add_special_tokens"),
        ({"messages": []}, "messages"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"best_of": True}, "best_of"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 2**32}, "max_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"top_k": -2}, "top_k"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"request_id": "r" * 61}, "request_id"),
        ({"temperature": 101}, "temperature"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_field(fields: Any, param: str) -> None:
    assert refusal_of(**fields).param == param


def test_every_field_is_in_the_documents_table() -> None:
    text = (Path(__file__).parents[3] / "docs/openai.md").read_text(encoding="utf-8")
    named = {*re.findall(r"`([a-z_]+)`", text)}
    guided = {name for name in REFUSED if name.startswith("guided_")} - {"guided_json"}
    fields = {*ChatBody.model_fields, *TextBody.model_fields, *REFUSED, *HARMLESS} - guided
    assert fields - named == set()


def test_unknown_fields_are_named_wherever_they_stand_and_no_others() -> None:
    fields = dict.fromkeys(HARMLESS, 1) | {"foo": 1, "b\r\nad": 2, "suffix": None}
    message = {"role": "user", "content": [{"type": "text", "text": "a", "cache": 1}], "bar": 2}
    body = {"messages": [message] * 3, "stream_options": {"mode": 1}} | fields
    names = unknown_fields(read_body(ChatBody, json.dumps(body).encode()))
    assert {*names} == {
        *("foo", "b??ad", "messages.bar", "messages.content.cache", "stream_options.mode"),
    }
    many = {f"x{number}": 1 for number in range(500)}
    assert (
        len(unknown_fields(read_body(TextBody, json.dumps({"prompt": "a"} | many).encode()))) < 25
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"5", b"null", b"\xff", b'{"prompt": "\\ud800"}', b'{"prompt": NaN}',
     b'{"temperature": Infinity, "prompt": "a"}', b"[" * 100_000, b'{"a":' * 100_000],
)  # fmt: skip
def test_bytes_that_are_no_json_object_are_refused(body: bytes) -> None:
    with pytest.raises(BadField):
        read_body(TextBody, body)


def test_a_body_that_is_wrong_everywhere_is_answered_briefly() -> None:
    message = {"role": "x" * 500, "content": {}, "tool_calls": 5}
    body = json.dumps({"messages": [message] * 500, "n": "x" * 500}).encode()
    with pytest.raises(BadField) as refusal:
        read_body(ChatBody, body)
    parts = str(refusal.value).split("; ")
    assert len(parts) <= MAX_ERRORS
    assert all(len(part) <= MAX_ERROR_CHARACTERS for part in parts)
    assert len(failure_told(refusal.value).body) < 4096


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (ChatBody, "messages", [1] * 3),
        (ChatBody, "tools", [1] * 3),
        (ChatBody, "documents", [1] * 3),
        (ChatBody, "logit_bias", dict.fromkeys(map(str, range(-1025, 0)), 1)),
        (TokenizeBody, "messages", [1] * 3),
        (DetokenizeBody, "tokens", [-1] * 3),
    ],
)
def test_a_list_without_a_bound_is_read_up_to_what_is_wrong(
    kind: type[Body], field: str, value: Any
) -> None:
    with pytest.raises(BadField) as refusal:
        read_body(kind, json.dumps({"messages": MESSAGES, field: value}).encode())
    assert refusal.value.param == field
    assert len(re.findall(r"\b(?:should|limit)\b", str(refusal.value))) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip
NAMES = st.sampled_from(
    sorted({*ChatBody.model_fields, *TextBody.model_fields, *REFUSED, *HARMLESS, "foo"})
)


@settings(max_examples=40)
@given(st.dictionaries(NAMES, JSON, max_size=6), st.booleans())
def test_whatever_a_body_says_it_is_translated_or_refused(fields: Any, is_chat: bool) -> None:
    asked: dict[str, Any] = {"messages": MESSAGES} if is_chat else {"prompt": "a"}
    body = json.dumps(asked | fields).encode()
    with suppress(BadField):
        if is_chat:
            chat_request(read_body(ChatBody, body)).SerializeToString()
        else:
            for request in text_requests(read_body(TextBody, body)):
                request.SerializeToString()

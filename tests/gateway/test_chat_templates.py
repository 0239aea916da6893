"""A checkpoint's chat template is found wherever published ones have it, or said to be missing by
name.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest
from transformers import AutoTokenizer

from moesaic.v1 import generation_pb2 as pb
from services.gateway.checkpoint import read_checkpoint
from services.runtime.embedded_model import EMBEDDED_MODEL
from services.wire.errors import BadState, InvalidRequest
from tests.gateway.gateway_client import running_gateway
from tests.gateway.router_double import RouterDouble

CHAT = pb.Chat(messages=[pb.ChatMessage(role="user", content="a")])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the embedded model's text side without its chat template."""
    for name in (
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ):
        shutil.copy(EMBEDDED_MODEL / name, tmp_path)
    return tmp_path


def put(directory: Path, **places: Any) -> None:
    """Write templates: `jinja`, `json` and `config` are the three files, any other is an additional
    one's name.
    """
    for place, value in places.items():
        if place == "jinja":
            (directory / "chat_template.jinja").write_text(value)
        elif place == "json":
            (directory / "chat_template.json").write_text(json.dumps({"chat_template": value}))
        elif place == "config":
            path = directory / "tokenizer_config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": value}))
        else:
            (directory / "additional_chat_templates").mkdir(exist_ok=True)
            (directory / "additional_chat_templates" / f"{place}.jinja").write_text(value)


def named(**templates: str) -> list[dict[str, str]]:
    return [{"name": name, "template": template} for name, template in templates.items()]


def default_of(directory: Path) -> str:
    templates = read_checkpoint(directory).chat_templates
    return templates.sources[templates.choose("", has_tools=False)]


# As transformers chooses them.
CHOSEN: dict[str, dict[str, Any]] = {
    "a string": {"config": "right"},
    "the default of several": {"config": named(tool_use="wrong", default="right")},
    "names and texts": {"config": {"tool_use": "wrong", "default": "right"}},
    "a file": {"jinja": "right"},
    "a file before the configuration": {"jinja": "right", "config": "wrong"},
    "a file before a list": {"jinja": "right", "config": named(default="wrong", chatml="wrong")},
    "a file before what is none": {"jinja": "right", "config": 7},
    "a file beside additional ones": {"jinja": "right", "rag": "wrong"},
    "an additional default": {"default": "right", "rag": "wrong"},
    "the configuration before a processor's file": {"config": "right", "json": "wrong"},
}
# Where transformers finds none, or wants to be told which.
FOUND: dict[str, dict[str, Any]] = {
    "the only one of a list": {"config": named(chatml="right")},
    "the only additional one": {"rag": "right"},
    "the configuration's beside additional ones": {"config": "right", "rag": "wrong"},
    "a processor's file": {"json": "right"},
    "the only one of a list in a processor's file": {"json": named(chatml="right")},
    "the default in a processor's file": {"json": named(default="right", chatml="wrong")},
    "a processor's default beside named ones": {
        "json": "right",
        "config": named(a="wrong", b="wrong"),
    },
}


@pytest.mark.parametrize("places", [*CHOSEN.values(), *FOUND.values()], ids=[*CHOSEN, *FOUND])
def test_a_template_is_found(directory: Path, places: dict[str, Any]) -> None:
    put(directory, **places)
    assert default_of(directory) == "right"


@pytest.mark.parametrize("places", CHOSEN.values(), ids=CHOSEN)
def test_transformers_chooses_the_same(directory: Path, places: dict[str, Any]) -> None:
    put(directory, **places)
    assert AutoTokenizer.from_pretrained(directory).get_chat_template() == "right"


def test_a_byte_order_mark_is_no_part_of_a_template(directory: Path) -> None:
    (directory / "chat_template.jinja").write_bytes(b"\xef\xbb\xbfright")
    assert default_of(directory) == "right"


def test_a_template_that_is_a_link_to_nothing_is_named(directory: Path) -> None:
    (directory / "chat_template.jinja").unlink(missing_ok=True)
    (directory / "chat_template.jinja").symlink_to("nowhere")
    with pytest.raises(BadState, match=r"chat_template\.jinja cannot be read.*No such file"):
        read_checkpoint(directory)


def test_a_template_that_is_no_utf8_is_named(directory: Path) -> None:
    (directory / "chat_template.jinja").write_bytes("für".encode("latin-1"))
    with pytest.raises(BadState, match=r"chat_template\.jinja cannot be read as UTF-8: .*0xfc"):
        read_checkpoint(directory)


@pytest.mark.parametrize(
    "value",
    [
        7,
        True,
        ["a"],
        [{"name": "a"}],
        [{"template": "a"}],
        [{"name": "a", "template": 7}],
        {"default": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("place", ["config", "json"])
def test_what_holds_no_template_is_named_by_file_and_field(
    directory: Path, place: str, value: Any
) -> None:
    put(directory, **{place: value})
    file = "tokenizer_config.json" if place == "config" else "chat_template.json"
    with pytest.raises(BadState, match=rf"{file}: chat_template must be a string, or a list"):
        read_checkpoint(directory)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({}, "has no chat template; send text"),
        ({"config": None, "json": None}, "has no chat template; send text"),
        ({"config": []}, "has no chat template; send text"),
        (
            {"config": named(tool_use="a", chatml="b")},
            "has chat templates named 'chatml', 'tool_use'",
        ),
        (
            {"rag": "a", "tool_use": "b"},
            "has chat templates named 'rag', 'tool_use', and none of them is 'default'",
        ),
        ({"jinja": " \n"}, "has an empty chat template"),
        ({"jinja": "a\n{{ 'a' | unknown }}"}, "line 2: No filter named 'unknown'"),
    ],
)
async def test_a_chat_is_refused_with_what_there_is(
    directory: Path, places: dict[str, Any], said: str
) -> None:
    put(directory, **places)
    async with running_gateway(RouterDouble(), model=directory, model_name="mine") as client:
        status, message = await client.refused(chat=CHAT)
        model = await client.stub.GetModel(pb.GetModelRequest())
    assert status == grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("chat: model 'mine' ")
    assert said in message
    assert not model.has_chat_template


@pytest.mark.parametrize(
    ("name", "has_tools", "chosen"),
    [
        ("", False, "default"),
        ("", True, "tool_use"),
        ("default", True, "default"),
        ("rag", False, "rag"),
    ],
)
def test_a_chat_chooses_among_named_templates(
    directory: Path, name: str, has_tools: bool, chosen: str
) -> None:
    put(directory, config=named(default="a", tool_use="b", rag="c"))
    templates = read_checkpoint(directory).chat_templates
    assert templates.choose(name, has_tools=has_tools) == chosen


def test_of_templates_without_a_default_one_can_be_named(directory: Path) -> None:
    put(directory, config=named(chatml="a", rag="b"))
    templates = read_checkpoint(directory).chat_templates
    assert templates.choose("rag", has_tools=True) == "rag"
    with pytest.raises(InvalidRequest, match="none of them is 'default'; name one"):
        templates.choose("", has_tools=True)


def test_a_template_that_cannot_be_used_is_no_obstacle_to_another(directory: Path) -> None:
    put(directory, config=named(default="a", tool_use="{% for %}"))
    templates = read_checkpoint(directory).chat_templates
    assert templates.choose("", has_tools=False) == "default"
    with pytest.raises(InvalidRequest, match="has a chat template that cannot be used"):
        templates.choose("", has_tools=True)


async def test_each_named_template_renders_the_chats_that_ask_for_it(directory: Path) -> None:
    put(directory, config=named(default="a", tool_use="b {{ tools | length }}", rag="c {{ note }}"))
    chats = {
        "a": CHAT,
        "b 1": pb.Chat(messages=CHAT.messages, tools_json=["{}"]),
        "c d": pb.Chat(
            messages=CHAT.messages, template_name="rag", template_arguments_json='{"note": "d"}'
        ),
    }
    async with running_gateway(RouterDouble(), model=directory) as client:
        for text, chat in chats.items():
            rendered = await client.stub.Tokenize(pb.TokenizeRequest(chat=chat))
            plain = await client.stub.Tokenize(pb.TokenizeRequest(text=text))
            assert rendered.token_ids == plain.token_ids


def test_a_template_that_cannot_be_used_is_warned_of(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(directory, jinja="{% for %}")
    with caplog.at_level(logging.WARNING):
        assert not read_checkpoint(directory).has_chat_template
    assert "no chats are served: the checkpoint's chat template, line 1" in caplog.text

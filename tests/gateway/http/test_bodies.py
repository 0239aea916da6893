"""Large bodies are read in a process apart, as small ones are here."""

import asyncio
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.gateway.http.asked import READERS
from services.gateway.http.body_reader import MAX_BYTES_HERE, BodyReader
from services.gateway.http.body_worker import answered
from services.gateway.http.errors import BadField
from tests.gateway.http.http_client import CHAT, MESSAGES, TEXT, http_gateway
from tests.gateway.router_double import RouterDouble

LONG = "é " * MAX_BYTES_HERE
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("read_chat", {"messages": [{"role": "user", "content": LONG}], "n": 2, "top_k": 3, "foo": 1}),
    ("read_chat", {"messages": MESSAGES * 9000, "stream": True, "include_metrics": True}),
    ("read_text", {"prompt": [LONG, "b"], "request_id": "r", "logprobs": 2, "echo": True}),
    ("read_text", {"prompt": [[5] * 40_000, [6]], "return_token_ids": True}),
    ("read_tokenize", {"prompt": LONG, "return_token_strs": True}),
    ("read_detokenize", {"tokens": [5] * 40_000}),
]
REFUSED: list[tuple[str, Any]] = [
    ("read_text", {"prompt": [5] * 40_000, "top_p": 2}),
    ("read_text", {"prompt": [5] * 40_000 + ["a"]}),
    ("read_chat", {"messages": MESSAGES * 9000 + [{"role": "stranger"}]}),
    ("read_chat", [[]] * 40_000),
    ("read_tokenize", {"prompt": LONG, "messages": MESSAGES}),
]


@pytest.fixture(scope="module")
def reader() -> Iterator[BodyReader]:
    reader = BodyReader()
    yield reader
    reader.close()


async def test_a_large_body_is_read_apart_as_it_is_here(reader: BodyReader) -> None:
    for name, document in BODIES:
        body = json.dumps(document).encode()
        assert len(body) > MAX_BYTES_HERE
        assert await reader.read(READERS[name], body, "one") == READERS[name](body)
    for name, document in REFUSED:
        body = json.dumps(document).encode()
        said = []
        for read in (reader.read(READERS[name], body, "one"), here(name, body)):
            with pytest.raises(BadField) as refused:
                await read
            said.append((str(refused.value), refused.value.param))
        assert said[0] == said[1]


async def here(name: str, body: bytes) -> Any:
    return READERS[name](body)


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(60)",
        "pass",
        "print('nothing')",
        "import sys; sys.stdin.buffer.read(9); print(5); print(1)",
    ],
)
async def test_a_process_that_does_not_answer_is_ended_and_the_body_refused(code: str) -> None:
    reader = BodyReader(max_seconds=0.3, command=(sys.executable, "-c", code))
    with pytest.raises(BadField, match=r"took more than 0\.3 s, or too much memory"):
        await reader.read(READERS["read_text"], bytes(MAX_BYTES_HERE + 1), "one")
    reader.close()


async def test_at_the_end_nobody_waits_for_a_body_that_is_read() -> None:
    began = "import sys, time; sys.stdin.buffer.read(9); time.sleep(600)"
    reader = BodyReader(max_seconds=600, command=(sys.executable, "-c", began))
    body, before = bytes(MAX_BYTES_HERE + 1), children()
    reading = asyncio.create_task(reader.read(READERS["read_text"], body, "one"))
    while children() == before:  # noqa: ASYNC110 -- its start is no event
        await asyncio.sleep(0.01)
    reader.close()
    with pytest.raises(BadField):
        await reading
    assert children() == before


def children() -> set[str]:
    """Processes of this one, by their numbers."""
    tasks = Path("/proc/self/task").iterdir()
    return {pid for task in tasks for pid in (task / "children").read_text().split()}


async def test_a_client_that_leaves_its_body_keeps_nobody_from_the_next(
    reader: BodyReader,
) -> None:
    name, document = BODIES[1]
    body = json.dumps(document).encode()
    leaving = [asyncio.create_task(reader.read(READERS[name], body, "one")) for _ in range(3)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    assert await reader.read(READERS[name], body, "two") == READERS[name](body)


NO_JSON = [
    (TEXT, b'{"prompt": "a", "x": ' + b"[" * 90_000 + b"]" * 90_000 + b"}"),
    (CHAT, b'{"k": ' + b"[[]," * 40_000 + b"1" + b"]" * 40_000 + b"}"),
    (TEXT, b" " * 99_999),
]


async def test_a_large_body_that_is_none_is_refused_and_others_are_served() -> None:
    async with http_gateway(RouterDouble(answer=[5]), max_prompt_bytes=1 << 20) as client:
        headers = {"Content-Type": "application/json"}
        for path, body in NO_JSON:
            answer = await client.ask("POST", path, data=io.BytesIO(body), headers=headers)
            assert (answer.status, "no JSON" in answer.error["message"]) == (400, True)
        assert (await client.text(foo=[{"x": "y" * MAX_BYTES_HERE}])).status == 200


def test_what_the_process_says_is_what_was_read() -> None:
    assert b"the body is no JSON" in answered("read_text", b"{")

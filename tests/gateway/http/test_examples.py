"""The examples of clients work against a gateway as they stand."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.http.http_client import HttpClient, http_gateway
from tests.gateway.router_double import RouterDouble

EXAMPLES = Path(__file__).parents[3] / "examples" / "clients"
ANSWER = [500, 501, 502]
QUESTION = "Tell me a story."


@pytest.fixture
async def gateway() -> AsyncIterator[HttpClient]:
    async with http_gateway(RouterDouble(answer=ANSWER, max_context=512)) as client:
        yield client


async def printed(program: str, *arguments: str) -> str:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed here")
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return stdout.decode()


async def answer_of(client: HttpClient) -> str:
    deltas, _ = await client.grpc.complete()
    return "".join(delta.text for delta in deltas)


def url_of(client: HttpClient) -> str:
    return f"http://127.0.0.1:{client.grpc.http_port}/v1"


@pytest.mark.parametrize(("program", "file"), [(sys.executable, "chat.py"), ("node", "chat.mjs")])
async def test_a_chat_is_streamed(gateway: HttpClient, program: str, file: str) -> None:
    said = await printed(program, str(EXAMPLES / file), QUESTION, url_of(gateway))
    assert said == await answer_of(gateway) + "\n"


async def test_curl_has_the_answer_and_its_receipt(gateway: HttpClient) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed here")
    document = json.loads(await printed("sh", str(EXAMPLES / "chat.sh"), url_of(gateway)))
    assert document["choices"][0]["message"]["content"] == await answer_of(gateway)
    assert document["moesaic"]["receipt"]["end_to_end_nanos"] > 0


async def test_grpcurl_learns_the_calls_from_the_gateway(gateway: HttpClient) -> None:
    if shutil.which("grpcurl") is None:
        pytest.skip("grpcurl is not installed here")
    said = await printed("sh", str(EXAMPLES / "generate.sh"), gateway.grpc.address)
    assert '"completion"' in said

"""Failures over HTTP: a true status before the first token, an event after it, never a success."""

import asyncio
import gzip
import io
import json
import socket
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import openai
import pytest
from aiohttp import web

from moesaic.v1 import common_pb2
from services.gateway.http.connections import cut_off_at
from services.gateway.http.errors import failure_told, in_http_words
from services.wire.errors import (
    BadState,
    DeadlinePassed,
    InvalidRequest,
    NotFound,
    Outdated,
    Overloaded,
    PermissionDenied,
    ServingError,
    TooLong,
    Unauthenticated,
    Unavailable,
)
from tests.gateway.http.http_client import CHAT, MESSAGES, TEXT, HttpClient, http_gateway
from tests.gateway.router_double import RouterDouble, finished, token

LOST = {"status": grpc.StatusCode.UNAVAILABLE, "message": "no expert service answers"}
STREAM = {"prompt": "a", "stream": True}
ASK_FOR_MUCH = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequest("x"), 400, None),
        (TooLong("x"), 400, "context_length_exceeded"),
        (Unauthenticated("x"), 401, "invalid_api_key"),
        (PermissionDenied("x"), 403, "invalid_api_key"),
        (NotFound("x"), 404, "model_not_found"),
        (Outdated("x"), 409, "request_replaced"),
        (Overloaded("x"), 429, "rate_limit_exceeded"),
        (BadState("x"), 503, "service_unavailable"),
        (Unavailable("x", retry_after_seconds=2.2), 503, "service_unavailable"),
        (DeadlinePassed("x"), 504, "deadline_exceeded"),
        (ServingError("x"), 500, "internal_error"),
    ],
)
def test_each_failure_has_its_status_and_its_code(
    error: ServingError, status: int, code: str | None
) -> None:
    failure = failure_told(error)
    told = failure.document["error"]
    assert (failure.status, told["code"], told["message"]) == (status, code, "x")
    assert told.keys() == {"message", "type", "param", "code"}
    assert ("Retry-After" in failure.headers) == (status in (429, 503))
    if error.retry_after_seconds:
        assert failure.headers["Retry-After"] == "3"
        assert failure.headers["retry-after-ms"] == "2200"


@pytest.mark.parametrize(
    ("message", "expected", "param"),
    [
        ("sampling.top_p is 2; it must be", "top_p is 2; it must be", "top_p"),
        ("stop.max_new_tokens must be", "max_tokens must be", "max_tokens"),
        ("stop.stop_strings[0] has 0", "stop[0] has 0", "stop"),
        ("chat.messages[1].role must", "messages[1].role must", "messages"),
        ("token_ids.ids: 5 is no token", "prompt: 5 is no token", "prompt"),
        ("the prompt has 70 tokens", "the prompt has 70 tokens", None),
    ],
)
def test_fields_are_called_as_the_request_called_them(
    message: str, expected: str, param: str | None
) -> None:
    assert in_http_words(message) == (expected, param)


REFUSED: list[tuple[dict[str, Any], int, str | None]] = [
    ({"model": "other"}, 404, "model"),
    ({"max_tokens": 100}, 400, "max_tokens"),
    ({"prompt": "b" * 600}, 400, None),
    ({"prompt": [5] * 70}, 400, "prompt"),
    ({"prompt": [5000]}, 400, "prompt"),
    ({"prompt": ""}, 400, "prompt"),
    ({"stop": [""]}, 400, "stop"),
    ({"stop_token_ids": [5000]}, 400, "stop_token_ids"),
    ({"suffix": "x"}, 400, "suffix"),
]


async def test_what_cannot_be_served_is_refused_with_its_status_streamed_or_not() -> None:
    async with http_gateway(RouterDouble(answer=[5])) as client:
        for fields, status, param in REFUSED:
            for stream in (False, True):
                answer = await client.text(stream=stream, **fields)
                assert (answer.status, answer.error["param"]) == (status, param), fields
                assert answer.headers["Content-Type"] == "application/json"
                assert "X-Request-Id" in answer.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_a_loss_before_the_first_token_is_a_status_of_http(stream: bool) -> None:
    router = RouterDouble()
    async with http_gateway(router) as client:
        posting = asyncio.create_task(client.text(stream=stream))
        number = (await router.next_sequence()).sequence
        router.say(finished(number, common_pb2.FINISH_REASON_ERROR, **LOST))
        answer = await posting
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.error["message"] == "no expert service answers"


@pytest.mark.parametrize("is_batch", [False, True])
async def test_a_loss_after_the_first_token_is_an_event_and_no_success(is_batch: bool) -> None:
    router = RouterDouble()
    async with http_gateway(router) as client:
        posting = asyncio.create_task(client.text(stream=True, prompt=["a", "b"][: 1 + is_batch]))
        number = (await router.next_sequences(1 + is_batch))[0].sequence
        router.say(token(number, 5))
        router.say(finished(number, common_pb2.FINISH_REASON_ERROR, **LOST))
        answer = await posting
    *chunks, last = [json.loads(event) for event in answer.said]
    assert answer.status == 200
    assert last["error"]["code"] == "service_unavailable"
    assert chunks
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)


async def test_openais_client_takes_a_failure_within_a_stream_for_one() -> None:
    router = RouterDouble()
    async with http_gateway(router) as client:
        url = f"http://127.0.0.1:{client.grpc.http_port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as sdk:
            asking = asyncio.create_task(
                sdk.completions.create(model="tessera", prompt="a", stream=True)
            )
            number = (await router.next_sequence()).sequence
            router.say(token(number, 5))
            router.say(finished(number, common_pb2.FINISH_REASON_ERROR, **LOST))
            with pytest.raises(openai.APIError, match="no expert service answers"):
                [chunk async for chunk in await asking]


async def test_a_stream_is_kept_by_comments_while_nothing_comes() -> None:
    router = RouterDouble()
    async with http_gateway(router, http_quiet_seconds=0.05) as client:
        async with client.session.post(TEXT, json=STREAM) as response:
            assert response.status == 200
            assert await response.content.readuntil(b"\n\n") == b": waiting\n\n"
            number = (await router.next_sequence()).sequence
            router.say(finished(number, common_pb2.FINISH_REASON_ERROR, **LOST))
            assert b'data: {"error"' in await response.read()


async def test_a_request_whose_time_is_up_is_told_so() -> None:
    router = RouterDouble()
    async with http_gateway(router, default_timeout_seconds=0.1, max_timeout_seconds=0.1) as client:
        answer = await client.text(stream=True)
    assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")


async def test_without_a_router_there_is_a_status_and_a_time_to_come_back() -> None:
    router = RouterDouble()
    async with http_gateway(router, router_grace_seconds=0) as client:
        assert (await client.get("/health")).status == 200
        watch = client.grpc.watch_health()
        assert await anext(watch) == "SERVING"
        router.may_begin.clear()
        router.break_stream()
        assert await anext(watch) == "NOT_SERVING"
        answers = [
            *(await client.text(), await client.text(stream=True)),
            *(await client.get("/health"), await client.get("/ping")),
        ]
        models = await client.get("/v1/models")
    for answer in answers:
        assert (answer.status, answer.error["code"]) == (503, "service_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    assert models.document["data"][0]["id"] == "tessera"


async def test_a_full_queue_is_429_and_says_when_to_come_back() -> None:
    router = RouterDouble()
    async with http_gateway(router, max_waiting_requests=1, max_calls=2) as client:
        router.kv_tokens = router.sequences = 0
        router.grant()
        posting = [asyncio.create_task(client.text()) for _ in range(2)]
        done, waiting = await asyncio.wait(posting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
    (answer,) = (task.result() for task in done)
    assert answer.status == 429
    assert answer.error["code"] == "rate_limit_exceeded"
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize(
    ("settings", "fields", "words"),
    [
        (
            {"max_waiting_requests": 8, "max_client_share": 0.5},
            {"prompt": ["a", "b"], "n": 3},
            "prompt has 2 elements, and n is 3: of these 6 continuations at most 4",
        ),
        (
            {"requests_per_second": 1000, "max_paced_requests": 2},
            {"prompt": ["a"] * 3},
            "prompt has 3 elements; at most 2",
        ),
        (
            {"max_waiting_tokens": 30},
            {"prompt": [[5] * 16] * 2, "n": 1},
            "prompt: its elements have 32 tokens or more together",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_batch_that_can_never_be_let_in_is_400_and_not_429(
    settings: dict[str, Any], fields: dict[str, Any], words: str, stream: bool
) -> None:
    router = RouterDouble(answer=[5], sequences=0)  # so that all of it waits
    async with http_gateway(router, **settings) as client:
        answer = await client.text(stream=stream, **fields)
        assert (answer.status, answer.error["param"]) == (400, "prompt")
        assert words in answer.error["message"]
        router.sequences = 8
        router.grant()
        assert (await client.text(stream=stream)).status == 200


async def test_a_batch_beside_others_that_wait_is_429() -> None:
    router = RouterDouble(answer=[5], sequences=0)
    async with http_gateway(router, max_waiting_requests=4) as client:
        waiting = asyncio.create_task(client.text())
        while (await client.get("/load")).document == {"server_load": 0}:
            pass
        answer = await client.text(prompt=["a", "b"], n=2)
        waiting.cancel()
    assert answer.status == 429


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"n": 100, "max_tokens": 20_000}, ["max_tokens", "n"]),
        ({"max_tokens": 100_000, "logprobs": 20}, ["max_tokens", "logprobs"]),
        (
            {"max_tokens": 60_000, "prompt": ["a"] * 16, "logprobs": 0},
            ["max_tokens", "prompt", "logprobs"],
        ),
        (
            {"max_tokens": 150_000, "return_routed_experts": True},
            ["max_tokens", "return_routed_experts"],
        ),
    ],
)
async def test_an_answer_that_could_fill_the_memory_is_refused_but_as_a_stream(
    fields: dict[str, Any], named: list[str]
) -> None:
    router = RouterDouble(max_context=200_000, kv_tokens=200_000, num_moe_layers=48)
    async with http_gateway(router) as client:
        answer = await client.text(**fields)
        assert (answer.status, answer.error["param"]) == (400, "max_tokens")
        assert answer.error["message"].startswith(f"{', '.join(named)}: together")
        assert "stream it, or ask for less" in answer.error["message"]
        posting = asyncio.create_task(client.text(stream=True, **fields))
        await router.submits.get()
        posting.cancel()


async def test_echoes_count_as_what_an_answer_holds() -> None:
    router = RouterDouble(max_context=200_000, kv_tokens=200_000)
    async with http_gateway(router) as client:
        text = "\u0001" * 500_000
        asked = {"prompt": text, "n": 128, "echo": True, "max_tokens": 1}
        body = io.BytesIO(json.dumps(asked).encode())
        answer = await client.ask("POST", TEXT, data=body)
    assert (answer.status, answer.error["param"]) == (400, "max_tokens")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_leaves_nothing_behind(stream: bool) -> None:
    router = RouterDouble()
    async with http_gateway(router) as client:
        before = len(asyncio.all_tasks())
        for prompt, count in (("a", 1), (["a", "b"], 2)):
            posting = asyncio.create_task(client.text(prompt=prompt, stream=stream))
            numbers = [one.sequence for one in await router.next_sequences(count)]
            if stream:
                router.say(token(numbers[0], 5))
                await router.all_said()
            posting.cancel()
            assert {await router.cancels.get() for _ in numbers} == {*numbers}
        load = await client.get("/load")
        await client.session.close()
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 -- their end is no event
                await asyncio.sleep(0.01)
    assert load.document == {"server_load": 0}


async def test_a_reader_that_stops_holds_the_sender_up_until_its_time_is_over() -> None:
    router = RouterDouble(max_context=60_000, kv_tokens=60_000)
    async with http_gateway(router, default_timeout_seconds=60) as client:
        body = json.dumps(STREAM | {"max_tokens": 50_000}).encode()
        _, writer = await asyncio.open_connection("127.0.0.1", client.grpc.http_port, limit=1)
        head = f"POST {TEXT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        number = (await router.next_sequence()).sequence
        for _ in range(50):
            router.say(*[token(number, 5)] * 999)
        await router.all_said()
        assert (await client.get("/load")).document == {"server_load": 1}
        writer.transport.abort()
        assert await router.cancels.get() == number


async def test_a_body_above_the_limit_is_refused_before_it_is_read() -> None:
    async with http_gateway(RouterDouble(answer=[5]), max_prompt_bytes=1000) as client:
        limit = 3 * (1000 + (64 << 10))

        async def endless() -> Any:
            for _ in range(10_000):
                yield b" " * 1000

        declared = await client.ask("POST", TEXT, data=b" " * (limit + 1))
        assert (declared.status, declared.error["code"]) == (413, "request_too_large")
        try:
            chunked = await client.ask("POST", TEXT, data=endless())
            assert chunked.status == 413
        except aiohttp.ClientConnectionError:
            pass  # it was cut off while it went on sending
        assert (await client.text()).status == 200


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async with http_gateway(RouterDouble(answer=[5]), http_request_seconds=0.05) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.grpc.http_port)
        writer.write(
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{{".encode()
        )
        assert b"504" in await reader.readline()
        writer.close()


async def test_a_client_that_leaves_its_answer_unread_is_cut_off() -> None:
    ended: asyncio.Queue[BaseException] = asyncio.Queue()

    async def write_on(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            async with cut_off_at(request, asyncio.get_running_loop().time() + 0.1):
                while True:
                    await response.write(bytes(1 << 20))
        except ConnectionError as error:
            ended.put_nowait(error)
        return response

    async with AsyncExitStack() as stack:
        runner = web.ServerRunner(web.Server(write_on), shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        _, writer = await asyncio.open_connection(*runner.addresses[0], limit=1)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(20):
            assert "does not read" in str(await ended.get())
        writer.close()


async def test_who_reads_none_of_many_whole_answers_is_cut_off() -> None:
    async with http_gateway(RouterDouble(answer=[5]), http_request_seconds=0.2) as client:
        with socket.socket() as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stranger.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(stranger, ("127.0.0.1", client.grpc.http_port))
            with pytest.raises(ConnectionError):
                await ask_on(stranger)
        assert (await client.text()).status == 200


async def ask_on(stranger: socket.socket) -> None:
    """Ask for as long as somebody listens."""
    async with asyncio.timeout(20):
        while True:
            await asyncio.get_running_loop().sock_sendall(stranger, ASK_FOR_MUCH)


async def test_connections_that_bring_no_request_end_and_so_do_too_many() -> None:
    limits: dict[str, Any] = {"http_request_seconds": 0.1, "http_max_connections": 2}
    async with http_gateway(RouterDouble(answer=[5]), **limits) as client:
        port = client.grpc.http_port
        (reader, writer), (_, other) = [
            await asyncio.open_connection("127.0.0.1", port) for _ in range(2)
        ]
        writer.write(b"GET /health HTTP/1.1\r\nHost:")
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.get("/health")
        assert await reader.read() == b""
        writer.close()
        other.close()
        assert (await client.text()).status == 200


async def test_of_connections_that_come_at_one_go_no_more_stay_than_may() -> None:
    async with http_gateway(RouterDouble(answer=[5]), http_max_connections=2) as client:
        loop = asyncio.get_running_loop()
        for _ in range(3):  # of those that left without a word nothing is counted
            with ExitStack() as stack:
                strangers = [stack.enter_context(socket.socket()) for _ in range(20)]
                for stranger in strangers:  # the gateway's loop does not run meanwhile
                    stranger.connect(("127.0.0.1", client.grpc.http_port))
                    stranger.setblocking(False)
                ended = {asyncio.create_task(until_ended(loop, one)) for one in strangers}
                async with asyncio.timeout(20):
                    while len(ended) > 2:
                        _, ended = await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
                for one in ended:
                    one.cancel()
                await asyncio.gather(*ended, return_exceptions=True)
            async with asyncio.timeout(20):
                while (await settled(client)) != 200:
                    pass


async def test_of_one_host_there_are_fewer_connections_than_of_all() -> None:
    limits: dict[str, Any] = {"http_max_connections": 4, "max_client_share": 0.5}
    async with http_gateway(RouterDouble(answer=[5]), **limits) as client:
        for _ in range(2):  # those that ended are not counted
            crowd = [await connected_from("127.0.0.2", client.port) for _ in range(3)]
            last, _ = crowd[-1]
            assert await last.read() == b""
            other, writer = await connected_from("127.0.0.3", client.port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in await other.readline()
            for _, each in (*crowd, (other, writer)):
                each.close()
                with suppress(ConnectionError):
                    await each.wait_closed()
            async with asyncio.timeout(20):
                while await settled(client) != 200:
                    pass


async def connected_from(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(host, 0))


async def until_ended(loop: asyncio.AbstractEventLoop, stranger: socket.socket) -> None:
    with suppress(ConnectionError):
        assert await loop.sock_recv(stranger, 1) == b""


async def settled(client: HttpClient) -> int:
    """The status of a request, 0 where it found no room."""
    try:
        return (await client.text(headers={"Connection": "close"})).status
    except aiohttp.ClientConnectionError:
        return 0


NO_TEXT = (
    b"Authorization: Bearer \xff",
    b"x-api-key: \xc3\xa9",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: \xff",
    b"X-Request-Id: \xff",
    b"Origin: \xff\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: \xff",
)


async def test_headers_that_are_no_text_fail_nothing() -> None:
    body = b'{"prompt": "a"}'
    async with http_gateway(RouterDouble(answer=[5]), cors_origin=["*"]) as client:
        for headers in NO_TEXT:
            for method in ("POST", "OPTIONS"):
                reader, writer = await asyncio.open_connection("127.0.0.1", client.grpc.http_port)
                head = f"{method} {TEXT} HTTP/1.1\r\nHost: localhost\r\n"
                head += f"Content-Length: {len(body)}\r\n"
                writer.write(head.encode() + headers + b"\r\n\r\n" + body)
                assert int((await reader.readline()).split()[1]) < 500, headers
                writer.close()


async def test_what_is_no_http_is_refused_and_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with http_gateway(RouterDouble(answer=[5])) as client:
        for sent in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\na: \x00\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", client.grpc.http_port)
            writer.write(sent)
            assert b" 400 " in await reader.readline()
            writer.close()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_compressed_body_is_refused() -> None:
    async with http_gateway(RouterDouble(answer=[5])) as client:
        answer = await client.ask(
            "POST",
            TEXT,
            data=gzip.compress(b" " * 10_000_000),
            headers={"Content-Encoding": "gzip"},
        )
    assert (answer.status, "compressed" in answer.error["message"]) == (400, True)


async def test_a_failure_of_ours_is_told_without_its_inside(tmp_path: Path) -> None:
    router = RouterDouble()
    async with http_gateway(router) as client:
        posting = asyncio.create_task(client.post(CHAT, messages=MESSAGES))
        number = (await router.next_sequence()).sequence
        said = {"status": grpc.StatusCode.UNAVAILABLE, "message": "lost 10.1.2.3:50053"}
        router.say(finished(number, common_pb2.FINISH_REASON_ERROR, **said))
        answer = await posting
    assert answer.error["message"] == "lost (an address within)"

"""`moesaic bench --http` reads what servers with OpenAI's API stream, and says why they refuse."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from moesaic.v1 import common_pb2
from services.cli.bench.failures import RequestsFailed
from services.cli.bench.figures import figures_of
from services.cli.bench.http_client import HttpClient, http_client, request_body
from services.cli.bench.http_stream import HttpStream
from services.cli.bench.loads import Bounds, ClosedLoop
from services.cli.bench.prompts import BenchPrompt, cut_to
from services.cli.bench.run import LoadRun
from services.cli.bench.sample import Sample
from services.cli.bench.settings import BenchSettings
from services.cli.bench.tables import tables
from services.runtime.settings import load
from tests.gateway.http.http_client import http_gateway
from tests.gateway.router_double import RouterDouble, finished, token

USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
LENGTH, STOP = common_pb2.FINISH_REASON_LENGTH, common_pb2.FINISH_REASON_STOP


def text(said: str, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": said, "finish_reason": finish_reason}]}


def delta(finish_reason: str | None = None, **said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said, "finish_reason": finish_reason}]}


def stream(*events: Any) -> bytes:
    """As a server writes them, with a comment that keeps the connection."""
    told = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return b": waiting\n\n" + b"".join(f"data: {one}\n\n".encode() for one in told)


def read(*blocks: bytes) -> tuple[Sample, HttpStream]:
    """What is seen of a stream whose bytes come in these blocks, a nanosecond apart."""
    sample = Sample(0, 0, 0)
    reading = HttpStream(sample)
    num_tokens = sum(reading.feed(block, moment) for moment, block in enumerate(blocks, 1))
    num_tokens += reading.end()
    assert num_tokens == (sample.num_tokens if reading.failure is None else num_tokens)
    return sample, reading


# With what came of each: at which event tokens came, how many, and why it ended.
STREAMS: dict[str, tuple[list[Any], list[int], list[int], Any]] = {
    "text": (
        [text("a"), text(""), text("b"), text("", "length"), USAGE, "[DONE]"],
        *([1, 2, 3], [1, 1, 1], LENGTH),
    ),
    "the last text with the reason": (
        [text("a"), text("b"), text("c", "stop"), USAGE, "[DONE]"],
        *([1, 2, 3], [1, 1, 1], STOP),
    ),
    "a chat": (
        [
            delta(role="assistant", content=""),
            delta(content="a"),
            delta(content=""),
            delta(content="b"),
            delta("stop"),
            USAGE,
            "[DONE]",
        ],
        *([2, 3, 4], [1, 1, 1], STOP),
    ),
    "thoughts": (
        [
            delta(role="assistant", content=""),
            delta(reasoning="a"),
            delta(reasoning_content="b"),
            delta(content="c"),
            delta("stop", content=""),
            USAGE,
        ],
        *([2, 3, 4], [1, 1, 1], STOP),
    ),
    "a call of a tool": (
        [delta(role="assistant"), delta(tool_calls=[{"index": 0}]), delta("tool_calls"), USAGE],
        *([2], [3], STOP),
    ),
    "several tokens in a chunk": ([text("ab"), text("c", "length"), USAGE], [1, 2], [1, 2], LENGTH),
    "fewer tokens than chunks": (
        [text("a"), text("b"), text("c"), text("d"), text("", "length"), USAGE],
        *([1, 2, 3], [1, 1, 1], LENGTH),
    ),
    "no usage": ([text("a"), text("b", "stop"), "[DONE]"], [1, 2], [1, 1], STOP),
}


@pytest.mark.parametrize(("events", "moments", "counts", "reason"), STREAMS.values(), ids=STREAMS)
def test_tokens_are_counted_as_they_come(
    events: list[Any], moments: list[int], counts: list[int], reason: Any
) -> None:
    sample, reading = read(*map(stream, events))
    assert reading.failure is None
    assert (sample.arrival_nanos, sample.arrival_tokens) == (moments, counts)
    assert sample.completion is not None
    assert sample.completion.finish_reason == reason
    assert sample.completion.usage.completion_tokens == sum(counts)
    assert sample.completion.usage.prompt_tokens == (7 if USAGE in events else 0)


@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_where_blocks_are_cut_makes_no_difference(cuts: list[int]) -> None:
    written = stream(*STREAMS["a chat"][0]).replace(b"\n", b"\r\n")
    edges = [0, *sorted(min(cut, len(written)) for cut in cuts), len(written)]
    blocks = [written[start:end] for start, end in pairwise(edges)]
    sample, _ = read(*blocks)
    assert sample.arrival_tokens == [1, 1, 1]
    assert sample.completion is not None and sample.completion.usage.prompt_tokens == 7


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([text("a"), {"error": {"message": "it broke", "code": 500}}], "it broke"),
        ([{"error": "it broke"}, text("", "stop")], "it broke"),
        ([text("a"), "[DONE]"], "the stream ended without a finish_reason"),
        ([], "the stream ended without a finish_reason"),
        (["{"], "an event of the stream is no JSON object"),
        (["[1]"], "an event of the stream is no JSON object"),
        ([{"error": {"message": "a\nb\x1b[2J"}}], "a b\\x1b[2J"),
    ],
)
def test_a_stream_that_does_not_end_well_has_failed(events: list[Any], said: str) -> None:
    sample, reading = read(stream(*events))
    assert reading.failure is not None
    assert (reading.failure.status, reading.failure.message) == ("STREAM", said)
    assert sample.completion is None


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"choices": None},
        {"choices": [7]},
        {"choices": [{"delta": 7}]},
        {"choices": [{"text": 7}]},
        {"usage": 7},
        {"usage": {"completion_tokens": -1, "prompt_tokens": "a"}},
        {"usage": {"completion_tokens": 2**70}},
        {"moesaic": {"receipt": {"end_to_end_nanos": "many"}}},
        {"moesaic": {"receipt": 7}},
    ],
    ids=str,
)
def test_what_is_no_part_of_a_completion_counts_for_nothing(event: dict[str, Any]) -> None:
    sample, reading = read(stream(event, text("a", "stop")), stream(event))
    assert reading.failure is None
    assert sample.num_tokens == 1


def test_an_event_without_end_is_not_kept() -> None:
    reading = HttpStream(Sample(0, 0, 0))
    for _ in range(6):
        reading.feed(b"x" * (1 << 20), 1)
    assert reading.failure is not None
    assert reading.failure.message == "an event of the stream is too long"


def test_a_receipt_of_ours_is_read() -> None:
    receipt = {"end_to_end_nanos": 9, "decode": {"wire_nanos": 3, "steps": 2}, "new_field": 1}
    sample, _ = read(stream(text("a", "stop"), USAGE | {"moesaic": {"receipt": receipt}}))
    assert sample.completion is not None
    assert sample.completion.receipt.decode.wire_nanos == 3


Answer = Callable[[web.Request, Any], Awaitable[web.StreamResponse]]


class OpenAi:
    """A server that answers as told, and keeps what it was asked."""

    def __init__(self, *answers: bytes | web.Response | None, owned_by: str = "vllm") -> None:
        self.answers = [*answers]
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[str | None] = []
        self.models = [{"id": name, "owned_by": owned_by, "max_model_len": 64} for name in "mn"]

    async def list(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("Authorization"))
        return web.json_response({"object": "list", "data": self.models})

    async def tokenise(self, request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response({"tokens": [*body["prompt"].encode()], "count": 0})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, await request.json()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, web.Response):
            return answer
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if answer is None:  # it hangs, or is cut
            await response.write(stream(text("a")))
            assert request.transport is not None
            request.transport.abort()
        else:
            await response.write(answer)
        return response


@asynccontextmanager
async def listening(server: OpenAi) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(
        [
            web.get("/v1/models", server.list),
            web.post("/tokenize", server.tokenise),
            web.post("/v1/completions", server.complete),
            web.post("/v1/chat/completions", server.complete),
        ]
    )
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def settings(*arguments: str, url: str = "http://127.0.0.1:1") -> BenchSettings:
    return load(BenchSettings, ["--http", url, *arguments], "moesaic bench")


@asynccontextmanager
async def client_of(
    server: OpenAi, *arguments: str, prompts: Sequence[BenchPrompt] = (BenchPrompt("hello"),)
) -> AsyncIterator[HttpClient]:
    async with listening(server) as url, asyncio.timeout(30):
        wanted = settings(*arguments, url=url)
        async with http_client(url, wanted, prompts) as client:
            yield client


async def sent(client: HttpClient) -> Sample:
    now = time.monotonic_ns()
    sample = Sample(1, now, now)
    await client.send(sample)
    return sample


WHOLE = stream(text("a"), text("b"), text("c", "length"), USAGE, "[DONE]")


async def test_a_load_has_figures_and_tables_without_receipts() -> None:
    server = OpenAi(WHOLE)
    async with client_of(server, "--ignore-eos", "--top-k", "3") as client:
        model = await client.describe()
        run = LoadRun(ClosedLoop(2), Bounds(4, None))
        await run.run(client.send)
        assert client.num_tokens == 12
    assert (model.model, model.max_context) == ("m", 64)
    figures = figures_of(run, [])
    assert (figures.num_completed, figures.num_failed, figures.spent) == (4, 0, None)
    assert figures.latencies.ttft is not None and figures.latencies.ttft.count == 4
    assert [table.title for table in tables([figures])] == [
        "throughput, and latency in ms",
        "latency in ms: 2 at a time",
    ]
    path, body = server.asked[0]
    assert path == "/v1/completions"
    assert body == {
        "model": "m",
        "prompt": "hello",
        "max_tokens": 64,
        "top_k": 3,
        "seed": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert sorted(body["seed"] for _, body in server.asked) == [0, 1, 2, 3]


async def test_a_chat_is_a_message_of_a_user_and_the_model_can_be_chosen() -> None:
    server = OpenAi(WHOLE)
    async with client_of(server, "--chat", "--http-model", "n") as client:
        await client.describe()
        await sent(client)
    path, body = server.asked[0]
    assert (path, body["model"]) == ("/v1/chat/completions", "n")
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    assert "include_metrics" not in body


async def test_a_server_of_ours_is_asked_for_its_receipt() -> None:
    server = OpenAi(WHOLE, owned_by="moesaic")
    async with client_of(server) as client:
        await client.describe()
        await sent(client)
    assert server.asked[0][1]["include_metrics"] is True


async def test_prompts_are_cut_by_the_servers_tokenizer() -> None:
    async with client_of(OpenAi(WHOLE)) as client:
        await client.describe()
        (prompt,) = await cut_to(client.tokenise, [BenchPrompt("hello")], 4)
    body = request_body(settings(), prompt, 0, model="m")
    assert body["prompt"] == [*b"hell"]


async def test_the_key_is_shown_from_a_file_or_as_it_is(tmp_path: Path) -> None:
    server = OpenAi(WHOLE)
    (tmp_path / "key").write_text("secret\n")
    for flags in (("--token", "secret"), ("--token-file", str(tmp_path / "key")), ()):
        async with client_of(server, *flags) as client:
            await client.describe()
    assert server.keys == ["Bearer secret", "Bearer secret", None]


REFUSED = web.json_response({"error": {"message": "too much", "type": "a"}}, status=429)
REFUSED.headers["Retry-After"] = "2"
FAILURES: dict[str, tuple[bytes | web.Response | None, str, str, float | None]] = {
    "too many": (REFUSED, "HTTP 429", "too much", 2.0),
    "no envelope": (web.json_response({"message": "no"}, status=400), "HTTP 400", "no", None),
    "no JSON": (web.Response(text="<h1>", status=502), "HTTP 502", "<h1>", None),
    "nothing": (web.Response(status=503), "HTTP 503", "Service Unavailable", None),
    "in the stream": (stream({"error": {"message": "broke"}}), "STREAM", "broke", None),
    "cut": (None, "CONNECTION", "Response payload is not completed", None),
}


@pytest.mark.parametrize(("answer", "status", "said", "after"), FAILURES.values(), ids=FAILURES)
async def test_a_request_that_fails_is_told_by_status_and_words(
    answer: bytes | web.Response | None, status: str, said: str, after: float | None
) -> None:
    async with client_of(OpenAi(answer)) as client:
        await client.describe()
        failure = (await sent(client)).failure
    assert failure is not None
    assert (failure.status, failure.retry_after_seconds) == (status, after)
    assert failure.message.startswith(said)


async def test_a_server_that_hangs_runs_out_of_time() -> None:
    server = OpenAi(WHOLE)

    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    server.complete = hang  # type: ignore[method-assign]
    async with client_of(server, "--timeout", "0.1") as client:
        await client.describe()
        failure = (await sent(client)).failure
    assert failure is not None
    assert (failure.status, failure.message) == ("TIMEOUT", "the request's time was up")


async def test_a_server_without_the_model_or_without_models_is_told(unused_tcp_port: int) -> None:
    async with client_of(OpenAi(WHOLE), "--http-model", "x") as client:
        with pytest.raises(RequestsFailed, match="/v1/models lists no model 'x'"):
            await client.describe()
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with http_client(url, settings(), []) as client:
        with pytest.raises(RequestsFailed, match="nothing listens on"):
            await client.describe()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"http": "127.0.0.1:8000"}, "it is no URL such as"),
        ({"http": "ftp://127.0.0.1"}, "it is no URL such as"),
        ({"http": "http://a?b"}, "host, port and path alone"),
        ({"http": "http://a:b@c"}, "host, port and path alone"),
        ({"http": "http://10.0.0.1", "token": "a"}, "could read the token"),
        ({"http": "http://127.0.0.1", "address": "127.0.0.1:1"}, "give one of them"),
        ({"http": "http://127.0.0.1", "token": "a", "token_file": "b"}, "give one of them"),
        ({"http": "http://127.0.0.1", "token_file": "/nowhere"}, "the token cannot be read"),
        ({"http": "http://127.0.0.1", "chat": True, "prompt_tokens": 3}, "--chat sends messages"),
        ({"chat": True}, "go with --http"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        BenchSettings(**arguments)


@pytest.mark.parametrize("url", ["https://a/", "https://a/v1", "https://a/v1/"])
def test_a_url_may_have_its_version_or_not(url: str) -> None:
    assert settings(url=url, *("--token", "a")).http == "https://a"  # noqa: B026


async def test_the_command_shows_tables_and_writes_its_document(tmp_path: Path) -> None:
    server = OpenAi(WHOLE)
    flags = "--concurrency 1 --requests 3 --warm-up 1 --json"
    async with listening(server) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cli.main", "bench", "--http", url, *flags.split()),
            str(tmp_path / "bench.json"),
            stdout=asyncio.subprocess.PIPE,
        )
        stdout, _ = await process.communicate()
    assert process.returncode == 0
    assert "first token (TTFT)" in stdout.decode()
    assert f"m at {url}" in " ".join(stdout.decode().split())
    document = json.loads((tmp_path / "bench.json").read_text())
    assert document["cluster"]["is_own"] is False
    assert document["loads"][0]["figures"]["spent"] is None
    assert document["loads"][0]["requests"][0]["finish_reason"] == "length"


async def test_a_gateway_of_ours_is_measured_with_its_receipts() -> None:
    receipt = common_pb2.LatencyReceipt(decode=common_pb2.PhaseReceipt(wire_nanos=3, steps=2))
    flags = ("--seed", "8", "--max-new-tokens", "4")
    double = RouterDouble()
    async with http_gateway(double) as gateway, asyncio.timeout(30):
        url = f"http://127.0.0.1:{gateway.grpc.http_port}"
        async with http_client(url, settings(*flags, url=url), [BenchPrompt("a")]) as client:
            assert (await client.describe()).max_context == 64
            client.prompts = await cut_to(client.tokenise, client.prompts, 5)
            sending = asyncio.create_task(sent(client))
            sequence = await double.next_sequence()
            # The third and the fourth are halves of a character.
            tokens = [token(sequence.sequence, token_id) for token_id in (5, 6, 200, 201)]
            double.say(*tokens, finished(sequence.sequence, receipt=receipt))
            sample = await sending
    assert sample.failure is None and sample.completion is not None
    assert sample.num_tokens == sample.completion.usage.completion_tokens == 4
    assert sample.completion.usage.prompt_tokens == len(sequence.prompt_token_ids) == 5
    assert sequence.sampling.seed == 9
    assert sample.completion.receipt.decode == receipt.decode
    assert sample.completion.receipt.end_to_end_nanos > 0

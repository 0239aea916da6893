"""`moesaic bench` as a process of its own, against real gateways."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from moesaic.v1 import common_pb2
from tests.checkpoints import save_tiny
from tests.cluster.local import Cluster, cluster
from tests.gateway.gateway_client import running_gateway
from tests.gateway.router_double import RouterDouble, finished, token

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "benchmarking.md"
# The double's context takes 64 tokens.
SHORT = ("--prompt-tokens", "8", "--max-new-tokens", "16")
# Named as in the protos, and as the flags are.
NAMED_ELSEWHERE = {"usage", "receipt", "model", "settings"}


@pytest.fixture
async def tiny_cluster(tmp_path: Path, gradients_as_before: None) -> AsyncIterator[Cluster]:
    """A whole cluster of a random tiny model."""
    model = save_tiny("olmoe", tmp_path / "olmoe")
    async with cluster(model) as running:
        yield running


async def start(address: str, *arguments: str) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "services.cli.main", "bench", "--address", address, *arguments)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


async def bench(address: str, arguments: str, *more: str) -> tuple[int, str, str]:
    return await ended(await start(address, *arguments.split(), *more))


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


async def test_closed_loops_are_measured_one_after_the_other(
    tiny_cluster: Cluster, tmp_path: Path
) -> None:
    flags = (
        "--concurrency 1,3 --requests 6 --max-new-tokens 5 --ignore-eos --slo ttft=1000s "
        "--prompt-tokens 12"
    )
    code, stdout, stderr = await bench(
        tiny_cluster.gateway, flags, "--json", str(tmp_path / "bench.json")
    )
    assert (code, stderr.splitlines()[:2]) == (
        0,
        ["measuring: 1 at a time", "measuring: 3 at a time"],
    )
    assert max(map(len, stdout.splitlines())) <= 100
    # "wire" has a row only where it takes long enough to be seen.
    for words in (
        "first token (TTFT)",
        "between tokens (ITL)",
        "end to end (E2E)",
        "all communication",
    ):
        assert words in stdout
    one, three = read(tmp_path / "bench.json")["loads"]
    assert one["load"] == {"kind": "closed_loop", "concurrency": 1}
    assert most_in_flight(one["requests"]) == 1
    assert most_in_flight(three["requests"]) == 3
    for load in (one, three):
        figures = load["figures"]
        assert (figures["num_completed"], figures["num_failed"], figures["good_share"]) == (
            6,
            0,
            1.0,
        )
        assert figures["latencies"]["itl"]["count"] == 6 * 4
        assert [request["number"] for request in load["requests"]] == [2, 3, 4, 5, 6, 7], (
            "warm-up took the first two"
        )
        for request in load["requests"]:
            assert request["usage"]["prompt_tokens"] == 12
            assert sum(request["token_counts"]) == request["usage"]["completion_tokens"] == 5
            assert request["token_seconds"] == sorted(request["token_seconds"])
            assert request["finish_reason"] == "length"


def most_in_flight(requests: list[dict[str, Any]]) -> int:
    changes = [(request["sent_seconds"], 1) for request in requests]
    changes += [(request["ended_seconds"], -1) for request in requests]
    in_flight = most = 0
    for _, change in sorted(changes):
        in_flight += change
        most = max(most, in_flight)
    return most


async def test_an_open_loop_sends_at_its_rate(tiny_cluster: Cluster, tmp_path: Path) -> None:
    flags = "--rate 40 --arrivals constant --requests 10 --max-new-tokens 3 --prompt-tokens 8"
    code, _, _ = await bench(tiny_cluster.gateway, flags, "--json", str(tmp_path / "bench.json"))
    assert code == 0
    (load,) = read(tmp_path / "bench.json")["loads"]
    assert load["load"]["kind"] == "open_loop"
    assert [request["due_seconds"] for request in load["requests"]] == [
        number / 40 for number in range(10)
    ]
    assert all(request["sent_seconds"] >= request["due_seconds"] for request in load["requests"])


async def test_the_document_has_what_its_description_names(
    tiny_cluster: Cluster, tmp_path: Path
) -> None:
    await bench(
        tiny_cluster.gateway,
        "--concurrency 1 --requests 1 --warm-up 0",
        "--json",
        str(tmp_path / "bench.json"),
    )
    document = read(tmp_path / "bench.json")
    assert document["schema"] == "moesaic.bench/1"
    assert document["cluster"]["model"]["model"] == "olmoe"
    description = DOCUMENT.read_text(encoding="utf-8")
    names = set(names_in(document))
    assert len(names) > 50
    assert {name for name in names if f"`{name}`" not in description} == set()


def names_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for name, inner in value.items():
            yield from () if name in NAMED_ELSEWHERE else names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_in(inner)


async def test_prompts_of_a_file_are_sent_in_turn(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('hello\n{"prompt": "hello world", "max_new_tokens": 2}\n', encoding="utf-8")
    double = RouterDouble(answer=[5, 6])
    async with running_gateway(double) as client:
        flags = "--concurrency 1 --requests 3 --warm-up 0 --max-new-tokens 9 --prompts"
        code, _, _ = await bench(client.address, flags, str(file))
        asked = [await double.next_sequence() for _ in range(3)]
    assert code == 0
    assert [sequence.max_new_tokens for sequence in asked] == [9, 2, 9]
    first, second, third = (list(sequence.prompt_token_ids) for sequence in asked)
    assert first == third
    assert second[: len(first)] == first != second


async def test_refused_requests_are_counted_by_reason_and_make_it_fail(tmp_path: Path) -> None:
    double = RouterDouble(answer=[5, 6])
    async with running_gateway(double, requests_per_second=0.001, max_paced_requests=1) as client:
        # One request is served, one waits for the client's rate, and there is no room for two more.
        flags = "--concurrency 4 --requests 4 --warm-up 0 --timeout 2"
        code, stdout, stderr = await bench(
            client.address, flags, *SHORT, "--json", str(tmp_path / "bench.json")
        )
    assert code == 1
    last = stderr.splitlines()[-1]
    assert last.startswith("moesaic bench: 3 of 4 requests failed: 2 RESOURCE_EXHAUSTED (")
    assert "to be tried again after" in last
    assert "1 DEADLINE_EXCEEDED (" in last
    assert "failed: 2 RESOURCE_EXHAUSTED" in " ".join(stdout.split())
    (load,) = read(tmp_path / "bench.json")["loads"]
    assert load["figures"]["num_completed"] == 1
    refused = [request["failure"] for request in load["requests"] if request["failure"] is not None]
    assert sorted(failure["status"] for failure in refused) == [
        "DEADLINE_EXCEEDED",
        *["RESOURCE_EXHAUSTED"] * 2,
    ]
    assert all(
        one["retry_after_seconds"] > 0 for one in refused if one["status"] == "RESOURCE_EXHAUSTED"
    )


async def test_a_request_that_ends_on_the_way_has_failed() -> None:
    double = RouterDouble()
    async with running_gateway(double) as client:
        process = await start(
            client.address, "--concurrency", "1", "--requests", "1", "--warm-up", "0", *SHORT
        )
        sequence = await double.next_sequence()
        error, internal = common_pb2.FINISH_REASON_ERROR, grpc.StatusCode.INTERNAL
        failed = finished(sequence.sequence, error, status=internal, message="broke")
        double.say(token(sequence.sequence, 5), failed)
        code, _, stderr = await ended(process)
    assert code == 1
    assert "1 of 1 requests failed: 1 INTERNAL (broke)" in stderr


async def test_a_warm_up_that_fails_altogether_ends_it(tmp_path: Path) -> None:
    async with running_gateway(RouterDouble(answer=[5])) as client:
        flags = "--requests 100 --max-new-tokens 1000000 --prompt-tokens 8 --json"
        code, stdout, stderr = await bench(client.address, flags, str(tmp_path / "bench.json"))
    assert (code, stdout) == (1, "")
    assert (
        "moesaic bench: warm-up: 2 of 2 requests failed: 2 INVALID_ARGUMENT (stop.max_new_tokens"
        in stderr
    )
    assert read(tmp_path / "bench.json")["loads"] == []


async def test_where_nothing_is_completed_the_next_load_is_not_begun() -> None:
    async with running_gateway(RouterDouble(answer=[5])) as client:
        flags = (
            "--concurrency 1,2 --requests 1 --warm-up 0 --max-new-tokens 1000000 --prompt-tokens 8"
        )
        code, stdout, stderr = await bench(client.address, flags)
    assert code == 1
    assert "no request was completed" in stderr
    assert "2 at a time" not in stdout + stderr


async def test_an_address_where_nobody_listens_is_one_line(unused_tcp_port: int) -> None:
    code, stdout, stderr = await bench(f"127.0.0.1:{unused_tcp_port}", "--requests 1")
    assert (code, stdout) == (1, "")
    assert stderr.startswith("moesaic bench: nothing listens on ")
    assert stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_an_interrupt_shows_what_there_is(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    double = RouterDouble()
    async with running_gateway(double) as client:
        flags = "--concurrency 2 --requests 100 --warm-up 0 --json"
        process = await start(client.address, *SHORT, *flags.split(), str(tmp_path / "bench.json"))
        first, _ = await double.next_sequences(2)
        double.say(token(first.sequence, 5), token(first.sequence, 6), finished(first.sequence))
        await double.next_sequences(1)  # so its user has seen the end
        process.send_signal(number)
        returned, stdout, stderr = await ended(process)
        assert {await double.cancels.get(), await double.cancels.get()} == {2, 3}, (
            "nothing goes on at the router"
        )
    assert returned == code
    assert "interrupted: what follows is what was measured until then" in stderr
    assert "Traceback" not in stderr
    assert "in flight when it was broken off: 2" in stdout
    document = read(tmp_path / "bench.json")
    assert document["interrupted"] is True
    figures = document["loads"][0]["figures"]
    assert (figures["num_completed"], figures["num_failed"], figures["num_unfinished"]) == (1, 0, 2)


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "services.cli.main", "bench", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--rate", "1", "--concurrency", "1"), "give one of them"),
        (("--rate", "0"), "--rate"),
        (("--concurrency", "0"), "--concurrency"),
        (("--requests", "0"), "--requests"),
        (("--seconds", "0"), "--seconds"),
        (("--slo", "speed=1s"), "no objective such as ttft=200ms"),
        (("--prompts", "/nowhere"), "the prompts cannot be read"),
        (("--json", "/nowhere/bench.json"), "nothing can be written into /nowhere"),
    ],
)
def test_a_bad_call_is_refused_before_anything_starts(
    arguments: tuple[str, ...], complaint: str
) -> None:
    refused = called(*arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("moesaic bench: ")
    assert complaint in refused.stderr


def test_torch_is_not_imported() -> None:
    script = "import sys, services.cli.bench.command; sys.exit('torch' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=os.environ, timeout=60, check=False
    )
    assert ended.returncode == 0

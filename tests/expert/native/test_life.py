"""The native plane from its beginning to its end: where it is offered, what moves under it, and how
it stops.
"""

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from moesaic.v1 import expert_pb2, expert_pb2_grpc
from services.expert import metrics, plane
from services.expert.app import running
from services.expert.loading import LoadingTimes
from services.expert.settings import ExpertSettings
from services.runtime.server import PortInUse
from tests.expert.conftest import has_carrier
from tests.expert.expert_client import (
    Carrier,
    Client,
    assert_close,
    encoded,
    expected_rows,
    expert_service,
)
from tests.expert.native.raw_connection import message, opening, raw_connection
from tests.recorded_metrics import RecordedMetrics, having, metrics_of_this_process
from tests.recorded_spans import PARENT_ID, TRACE_ID, recorded_spans

pytestmark = pytest.mark.skipif(not has_carrier(Carrier.NATIVE), reason="needs a compiler")
NOT_HOSTED = expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED
ROWS = torch.randn(4, 32, generator=torch.Generator().manual_seed(2))
SLOT_BYTES = 3 * 32 * 32 * 4  # of an expert of the tiny model


def names_of_threads() -> list[str]:
    names = []
    for name in Path("/proc/self/task").glob("*/comm"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            names.append(name.read_text())
    return names


async def described_port(service: Client) -> int:
    response = await service.stub.Describe(expert_pb2.ExpertServiceDescribeRequest())
    return response.dispatch_port


async def test_describe_says_the_port_until_the_service_drains(olmoe: Path) -> None:
    async with expert_service(olmoe) as service:
        assert await described_port(service) == service.parts.plane.port != 0
        service.drain()
        assert await described_port(service) == 0


async def test_there_is_no_port_where_native_streams_are_off(
    olmoe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plane, "is_available", lambda: False)
    async with expert_service(olmoe, preload="all") as service:
        assert await described_port(service) == 0


async def test_there_is_no_port_without_a_kernel_for_the_experts(
    olmoe: Path, torch_alone: None
) -> None:
    async with expert_service(olmoe, preload="all") as service:
        assert await described_port(service) == 0


async def test_a_port_that_is_taken_is_refused_before_the_service_starts(olmoe: Path) -> None:
    async with expert_service(olmoe) as service:
        port = service.parts.plane.port
        settings = ExpertSettings(listen="127.0.0.1:0", model=olmoe, dispatch_port=port)
        refusal = pytest.RaisesExc(PortInUse, match=f"port {port} of 127.0.0.1 for native streams")
        with pytest.RaisesGroup(refusal):
            async with running(settings):
                pass


async def test_experts_come_and_go_under_traffic(olmoe: Path) -> None:
    times = LoadingTimes(retire_seconds=0.0)
    pairs = [(0, 3), (1, 4), (2, 3)]
    async with expert_service(
        olmoe, Carrier.NATIVE, times=times, expert_memory=2 * SLOT_BYTES
    ) as service:
        assert service.parts.bank.num_slots == 2  # so that each load writes where others were
        expected = expected_rows(service.parts.checkpoint, 1, ROWS, pairs)
        outcomes = {"computed": 0, "not hosted": 0}
        answered, is_over = asyncio.Event(), asyncio.Event()

        async def ask() -> None:
            stream, number = service.open_stream(), 0
            while not is_over.is_set():
                await stream.send(number, ROWS, pairs)
                reply = await stream.reply()
                assert reply.frame_id == number
                number += 1
                if reply.failures:
                    assert {failure.reason for failure in reply.failures} == {NOT_HOSTED}
                else:
                    assert_close(reply.rows(torch.float32, 32), expected)
                outcomes["not hosted" if reply.failures else "computed"] += 1
                answered.set()

        async def five_more(outcome: str) -> None:
            wanted = outcomes[outcome] + 5
            while outcomes[outcome] < wanted:
                answered.clear()
                await answered.wait()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(ask())
            for _ in range(6):
                await service.load((1, 3), (1, 4))
                await five_more("computed")
                await service.unload((1, 3), (1, 4))
                await five_more("not hosted")
                await service.load((0, 0), (0, 1))
                await service.unload((0, 0), (0, 1))
            is_over.set()


async def test_frames_that_were_read_are_answered_when_the_service_drains(olmoe: Path) -> None:
    async with expert_service(olmoe, Carrier.NATIVE, preload="all") as service:
        port = service.parts.plane.port
        async with raw_connection(port) as raw, raw_connection(port) as idle:
            raw.send(opening(1), opening(3))
            await raw.granted(3)
            raw.send(*[message(1, encoded(number, ROWS, [(0, 1)])) for number in range(20)])
            await raw.replies(1, 1)
            assert "native-plane\n" in names_of_threads()
            service.drain()
            assert await raw.status(1) == await raw.status(3) == (0, "")
            answered = [reply.frame_id for reply in await raw.replies(1, 20)]
            assert answered == list(range(20))
            for one in (raw, idle):
                while not one.is_closed:
                    await one.progress()
                assert one.is_going_away
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
    assert "native-plane\n" not in names_of_threads()


async def test_a_peer_that_stays_holds_the_end_up_for_a_moment_alone(olmoe: Path) -> None:
    async with expert_service(olmoe, Carrier.NATIVE, preload="all", drain_seconds=0.2) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.parts.plane.port)
    assert not await reader.read(0)
    writer.close()


async def test_a_large_batch_is_torchs(olmoe: Path) -> None:
    async with expert_service(olmoe, Carrier.NATIVE, preload="all") as service:
        stream, rows = service.open_stream(), torch.randn(400, 32)
        pairs = [(row, 5) for row in range(400)]
        await stream.send(0, rows, pairs)
        reply = await stream.reply()
        assert_close(
            reply.rows(torch.float32, 32),
            expected_rows(service.parts.checkpoint, 1, rows, pairs),
        )
        assert service.parts.plane.counts().computed_frames == 0


def test_a_client_of_grpcios_threads_is_served(olmoe: Path) -> None:
    async def serve() -> list[expert_pb2.DispatchResponse]:
        async with expert_service(olmoe, Carrier.NATIVE, preload="all") as service:
            return await asyncio.to_thread(ask_in_this_thread, service.parts.plane.port)

    grant, *replies = asyncio.run(serve())
    assert grant.granted_pairs > 0
    assert not grant.HasField("reply")
    assert sorted(reply.reply.frame_id for reply in replies) == [0, 1, 2, 3]
    assert max(reply.granted_pairs for reply in replies) == grant.granted_pairs + 8


def ask_in_this_thread(port: int) -> list[expert_pb2.DispatchResponse]:
    requests = [
        expert_pb2.DispatchRequest.FromString(encoded(number, ROWS, [(0, 1), (3, 2)]))
        for number in range(4)
    ]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = expert_pb2_grpc.ExpertServiceStub(channel)
        responses = list(stub.Dispatch(iter(requests)))
        with pytest.raises(grpc.RpcError) as refused:
            stub.Describe(expert_pb2.ExpertServiceDescribeRequest())
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.RpcError) as compressed:
            list(stub.Dispatch(iter(requests), compression=grpc.Compression.Gzip))
        assert compressed.value.code() is grpc.StatusCode.UNIMPLEMENTED
    return responses


async def test_spans_that_there_is_no_place_for_are_counted(olmoe: Path) -> None:
    options: dict[str, Any] = {"preload": "all", "batch_invariant": True, "record_seconds": 1000.0}
    num_frames, num_places = 4300, 4096
    traced = encoded(0, ROWS, [(0, 1)], traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01")
    with recorded_spans() as recorded:
        async with (
            expert_service(olmoe, Carrier.NATIVE, **options) as service,
            raw_connection(service.parts.plane.port) as raw,
        ):
            raw.send(opening(1))
            await raw.granted(1)
            for _ in range(num_frames):
                raw.send(message(1, traced))
            await raw.replies(1, num_frames)
            assert service.parts.plane.counts().lost_spans == num_frames - num_places
    assert len(recorded.spans) == num_places


async def test_some_batches_are_recorded_and_counts_outlive_the_plane(olmoe: Path) -> None:
    recorded = RecordedMetrics()
    in_process = metrics_of_this_process()
    async with expert_service(
        olmoe, Carrier.NATIVE, meter=recorded.meter, preload="all"
    ) as service:
        recorded.read()  # what others in this process have counted
        in_process.read()
        stream = service.open_stream()
        for number in range(300):
            await stream.send(number, ROWS, [(0, 1)])
            await stream.reply()
    found = recorded.read()
    assert found[metrics.FRAMES][having(outcome="computed")] == 300
    assert found[metrics.PAIRS][having(outcome="computed")] == 300
    assert found[metrics.BATCHES][having(layer=1)] == 300
    drawn = in_process.read()[metrics.BATCH_FRAMES]
    assert 0 < drawn[having()] < 100


LEAVING = """
import asyncio, sys
from services.expert.app import build
from services.expert.settings import ExpertSettings

async def begin():
    parts = build(ExpertSettings(listen="127.0.0.1:0", model=sys.argv[1]))
    serving = parts.plane.serving("127.0.0.1:0", 0)
    await serving.__aenter__()
    await asyncio.open_connection("127.0.0.1", parts.plane.port)
    parts.close()
    return parts, serving

kept = asyncio.run(begin())
"""


def test_a_process_that_never_drains_ends_all_the_same(olmoe: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", LEAVING, str(olmoe)], timeout=60, check=False)
    assert ended.returncode == 0

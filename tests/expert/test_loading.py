"""Experts come and go over real gRPC; whatever fails leaves the hosting as it was."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from moesaic.v1 import expert_pb2
from services.expert.admission import Slots
from services.expert.bank import Bank
from services.expert.loading import LoadingTimes
from services.model.refusals import UnusableModel
from services.wire.errors import BadState
from tests.checkpoints import save_tiny
from tests.expert.expert_client import (
    MINUTE_NANOS,
    Client,
    Gate,
    ThreadGate,
    assert_close,
    event_of_call,
    expected_rows,
    expert_service,
)

LOADING = expert_pb2.EXPERT_STATE_LOADING
READY = expert_pb2.EXPERT_STATE_READY
RETIRING = expert_pb2.EXPERT_STATE_RETIRING

EXPERT_BYTES = 3 * 24 * 32 * 4


def states(hosting: expert_pb2.WatchHostingResponse) -> dict[tuple[int, int], int]:
    return {(entry.layer, entry.expert): entry.state for entry in hosting.experts}


async def refusal(
    service: Client, *keys: tuple[int, int], **fields: Any
) -> tuple[grpc.StatusCode, str]:
    """How a load is refused; the hosting must be what it was."""
    before = await service.hosting()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await service.load(*keys, **fields)
    after = await service.hosting()
    assert states(after) == states(before)
    assert after.free_memory_bytes == before.free_memory_bytes
    return refused.value.code(), refused.value.details() or ""


async def test_the_service_starts_empty_and_says_what_it_is(olmoe: Path) -> None:
    async with expert_service(olmoe, expert_memory="1MiB", model_name="tiny") as service:
        described = await service.stub.Describe(expert_pb2.ExpertServiceDescribeRequest())
        assert (described.model, described.device, described.hidden_size) == ("tiny", "cpu", 32)
        assert list(described.moe_layers) == [0, 1, 2]
        assert described.num_experts == 8
        assert list(described.expert_bytes) == [EXPERT_BYTES] * 3
        assert described.expert_memory_bytes == described.free_memory_bytes == 1 << 20
        assert described.numerics_fingerprint.startswith("cpu ")
        assert not described.batch_invariant
        hosting = await service.hosting()
        assert (hosting.instance, states(hosting)) == (described.instance, {})
        assert hosting.generation > 0


async def test_loading_streams_its_progress_and_ends_with_all_ready(olmoe: Path) -> None:
    async with expert_service(olmoe, times=LoadingTimes(report_seconds=0.0)) as service:
        generation = await service.generation()
        progress = await service.load((0, 3), (2, 7), (0, 1))
        assert [(step.num_loaded, step.num_total) for step in progress] == [
            (0, 3),
            (1, 3),
            (2, 3),
            (3, 3),
        ]
        hosting = await service.hosting()
        assert progress[-1].generation == hosting.generation > generation
        assert states(hosting) == {(0, 1): READY, (0, 3): READY, (2, 7): READY}
        checkpoint = service.parts.checkpoint
        assert [entry.content_hash for entry in hosting.experts] == [
            checkpoint.content_hash(layer, expert) for layer, expert in ((0, 1), (0, 3), (2, 7))
        ]


async def test_a_quick_load_reports_its_start_and_its_end(olmoe: Path) -> None:
    async with expert_service(olmoe, times=LoadingTimes(report_seconds=60.0)) as service:
        progress = await service.load((0, 3), (2, 7), (0, 1))
    assert [(step.num_loaded, step.num_total) for step in progress] == [(0, 3), (3, 3)]


async def test_experts_are_added_to_those_that_are_hosted(olmoe: Path) -> None:
    async with expert_service(olmoe) as service:
        await service.load((1, 3))
        progress = await service.load((1, 3), (1, 4))
        assert [(step.num_loaded, step.num_total) for step in progress] == [(1, 2), (2, 2)]
        again = await service.load((1, 4))
        assert [(step.num_loaded, step.num_total) for step in again] == [(1, 1)]
        stream, rows = service.open_stream(), torch.randn(2, 32)
        await stream.send(0, rows, [(0, 4), (1, 3)])
        reply = await stream.reply()
        expected = expected_rows(service.parts.checkpoint, 1, rows, [(0, 4), (1, 3)])
        assert_close(reply.rows(torch.float32, 32), expected)


async def test_the_watch_shows_loading_ready_retiring_and_gone(
    olmoe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    reading = ThreadGate(monkeypatch, Bank, "fill", 1)
    retired = event_of_call(monkeypatch, Slots, "take_away")
    times = LoadingTimes(retire_seconds=1.0)
    async with expert_service(olmoe, times=times, expert_memory=2 * EXPERT_BYTES) as service:
        watch = service.stub.WatchHosting(expert_pb2.WatchHostingRequest())
        first = await watch.read()
        assert (states(first), first.free_memory_bytes) == ({}, 2 * EXPERT_BYTES)
        load = service.stub.LoadExperts(await service.load_request((1, 0)))
        begun = await watch.read()
        assert (states(begun), begun.free_memory_bytes) == ({(1, 0): LOADING}, EXPERT_BYTES)
        assert begun.experts[0].content_hash == b""
        assert await service.health() == 1  # while the expert is read
        reading.open()
        ready = await watch.read()
        assert states(ready) == {(1, 0): READY}
        assert (await _last(load)).generation == ready.generation
        stream, rows = service.open_stream(), torch.randn(1, 32)
        await stream.send(0, rows, [(0, 0)])
        await gate.queued.acquire()
        await gate.began.acquire()
        unloading = asyncio.create_task(service.unload((1, 0)))
        assert states(await watch.read()) == {(1, 0): RETIRING}
        await stream.send(1, rows, [(0, 0)])
        await gate.queued.acquire()
        await retired.wait()
        await stream.send(2, rows, [(0, 0)])
        late = await stream.reply()
        assert (late.frame_id, late.failures[0].reason) == (
            2,
            expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED,
        )
        gate.opened.set()
        assert [((reply := await stream.reply()).frame_id, reply.failures) for _ in range(2)] == [
            (0, ()),
            (1, ()),
        ]
        gone = await watch.read()
        assert (states(gone), gone.free_memory_bytes) == ({}, 2 * EXPERT_BYTES)
        response = await unloading
        assert (response.generation, response.free_memory_bytes) == (
            gone.generation,
            2 * EXPERT_BYTES,
        )
        assert [first.generation + step for step in range(1, 5)] == [
            begun.generation, ready.generation, ready.generation + 1, gone.generation,
        ]  # fmt: skip


async def test_an_operation_holds_what_it_loads_and_what_is_hosted_already_until_it_ends(
    olmoe: Path,
) -> None:
    async with expert_service(olmoe) as service:
        await service.load((0, 0))
        await service.load((0, 0), (0, 1), operation="move", hold_nanos=MINUTE_NANOS)
        for key in ((0, 0), (0, 1)):
            with pytest.raises(
                grpc.aio.AioRpcError, match="is held by operation 'move'"
            ) as refused:
                await service.unload(key, operation="another")
            assert refused.value.code() is grpc.StatusCode.ABORTED
        await service.unload((0, 1), operation="move")
        await service.load((0, 0), operation="move")
        await service.unload((0, 0))
        assert states(await service.hosting()) == {}


async def test_what_an_operation_counts_on_stays_while_the_rest_is_read(
    olmoe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with expert_service(olmoe) as service:
        await service.load((0, 0))
        reading = ThreadGate(monkeypatch, Bank, "fill", 1)
        request = await service.load_request((0, 0), (0, 1), operation="move", hold_nanos=1)
        load = service.stub.LoadExperts(request)
        await reading.reached.wait()
        with pytest.raises(grpc.aio.AioRpcError, match="is held by operation 'move'"):
            await service.unload((0, 0))
        reading.open()
        await _last(load)
        await service.unload((0, 0), (0, 1))


async def test_ending_a_hold_needs_no_generation_and_loads_nothing(olmoe: Path) -> None:
    async with expert_service(olmoe) as service:
        await service.load((0, 0), operation="move", hold_nanos=MINUTE_NANOS)
        before = await service.hosting()
        await service.load(
            (0, 0), (0, 1), operation="move", expected_generation=before.generation - 1
        )
        assert await service.hosting() == before
        await service.unload((0, 0), operation="another")
        assert states(await service.hosting()) == {}


async def test_a_load_that_fails_holds_nothing(
    olmoe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise UnusableModel("unreadable")

    async with expert_service(olmoe) as service:
        await service.load((0, 0))
        monkeypatch.setattr(Bank, "fill", fail)
        await refusal(service, (0, 0), (0, 1), operation="move", hold_nanos=MINUTE_NANOS)
        await service.unload((0, 0))


async def test_a_hold_without_an_operation_or_beyond_its_limits_is_refused(olmoe: Path) -> None:
    async with expert_service(olmoe) as service:
        for name, nanos, limit in (("move", 10**12, "120 s"), ("m" * 129, 5, "limit is 128")):
            code, message = await refusal(service, (0, 0), operation=name, hold_nanos=nanos)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert limit in message
        code, message = await refusal(service, (0, 0), hold_nanos=5)
        assert (code, message) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "operation is empty, but hold_nanos is 5; name who holds the experts",
        )


async def test_of_two_planners_one_loses(olmoe: Path) -> None:
    async with expert_service(olmoe) as service:
        generation = await service.generation()
        await service.load((0, 0))
        code, message = await refusal(service, (0, 1), expected_generation=generation)
        assert code is grpc.StatusCode.ABORTED
        assert message == f"expected_generation is {generation}; the hosting's is {generation + 2}"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.unload((0, 0), expected_generation=generation)
        assert refused.value.code() is grpc.StatusCode.ABORTED


async def test_an_expert_that_is_loading_cannot_be_loaded_or_let_go_by_another(
    olmoe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = ThreadGate(monkeypatch, Bank, "fill", 1)
    async with expert_service(olmoe) as service:
        load = service.stub.LoadExperts(await service.load_request((0, 0)))
        await reading.reached.wait()
        assert await refusal(service, (0, 0)) == (
            grpc.StatusCode.ABORTED,
            "expert 0 of layer 0 is loading",
        )
        with pytest.raises(grpc.aio.AioRpcError, match="is loading"):
            await service.unload((0, 0))
        reading.open()
        assert (await _last(load)).num_loaded == 1


async def test_what_does_not_fit_is_refused_before_anything_is_allocated(olmoe: Path) -> None:
    async with expert_service(olmoe, expert_memory=2 * EXPERT_BYTES + 1) as service:
        await service.load((0, 0))
        generation = await service.generation()
        code, message = await refusal(service, (0, 1), (0, 2))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (
            message == "experts has 2 that are not hosted; expert_memory has room for 1 more of 2"
        )
        assert await service.generation() == generation
        assert service.parts.bank.num_slots == 2
        await service.load((0, 1))


async def test_memory_that_was_let_go_is_used_again(olmoe: Path) -> None:
    async with expert_service(olmoe, expert_memory=EXPERT_BYTES) as service:
        stream, rows = service.open_stream(), torch.randn(3, 32)
        for key in ((0, 1), (2, 6)):
            await service.load(key)
            await stream.send(0, rows, [(0, key[1]), (2, key[1])], layer=key[0])
            reply = await stream.reply()
            expected = expected_rows(
                service.parts.checkpoint, key[0], rows, [(0, key[1]), (2, key[1])]
            )
            assert_close(reply.rows(torch.float32, 32), expected)
            assert (await service.unload(key, (1, 1))).free_memory_bytes == EXPERT_BYTES


async def test_what_the_model_does_not_have_is_not_found(olmoe: Path) -> None:
    async with expert_service(olmoe) as service:
        for key, message in (
            ((3, 0), "layer 3 of"),
            ((0, 8), "expert is 8; layer 0 has experts 0 to 7"),
        ):
            code, details = await refusal(service, key)
            assert code is grpc.StatusCode.NOT_FOUND
            assert details.startswith(message)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await service.unload(key)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        code, message = await refusal(service)
        assert (code, message) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "experts is empty; name at least one",
        )


async def test_another_checkpoint_s_digest_is_refused(olmoe: Path) -> None:
    async with expert_service(olmoe) as service:
        code, message = await refusal(service, (0, 0), model_digest="other")
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert message.startswith("model_digest is 'other'; this service's checkpoint is")


async def test_a_checkpoint_that_is_truncated_during_a_load_leaves_the_hosting_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_tiny("olmoe", tmp_path)
    async with expert_service(model, expert_memory=4 * EXPERT_BYTES) as service:
        await service.load((0, 0))
        reading = ThreadGate(monkeypatch, Bank, "fill", 2)
        load = service.stub.LoadExperts(await service.load_request((0, 1), (0, 2), (0, 3)))
        await reading.reached.wait()
        with (model / "model.safetensors").open("r+b") as file:
            file.truncate(100)
        reading.open()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _last(load)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "model.safetensors has changed since this process opened it" in (
            refused.value.details() or ""
        )
        hosting = await service.hosting()
        assert states(hosting) == {(0, 0): READY}
        assert hosting.free_memory_bytes == 3 * EXPERT_BYTES
        stream = service.open_stream()
        await stream.send(0, torch.randn(1, 32), [(0, 0)], layer=0)
        assert (await stream.reply()).failures == ()


async def test_a_load_whose_caller_leaves_is_undone(
    olmoe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = ThreadGate(monkeypatch, Bank, "fill", 1)
    async with expert_service(olmoe) as service:
        watch = service.stub.WatchHosting(expert_pb2.WatchHostingRequest())
        await watch.read()
        load = service.stub.LoadExperts(await service.load_request((0, 0), (0, 1)))
        assert states(await watch.read()) == {(0, 0): LOADING, (0, 1): LOADING}
        await reading.reached.wait()
        load.cancel()
        assert states(await watch.read()) == {}
        reading.open()
        await service.load((0, 2))


async def test_each_share_is_preloaded_once(olmoe: Path) -> None:
    hosted: list[tuple[int, int]] = []
    for share in ("0/3", "1/3", "2/3"):
        async with expert_service(olmoe, preload=share) as service:
            hosting = await service.hosting()
            assert set(states(hosting).values()) == {READY}
            assert 6 <= len(hosting.experts) <= 9
            hosted += states(hosting)
    assert sorted(hosted) == [(layer, expert) for layer in range(3) for expert in range(8)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expert_memory": 100}, f"expert_memory is 100 bytes; one expert takes {EXPERT_BYTES}"),
        (
            {"device": "cuda:7"},
            "device is cuda:7; this machine has . CUDA devices that torch can use",
        ),
    ],
)
async def test_what_cannot_be_used_is_refused_at_start(
    olmoe: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadState, match=message):
        async with expert_service(olmoe, **settings):
            pass


async def test_a_truncated_checkpoint_is_refused_at_start(olmoe: Path, tmp_path: Path) -> None:
    model = shutil.copytree(olmoe, tmp_path / "model")
    with (model / "model.safetensors").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(BadState, match="truncated"):
        async with expert_service(model):
            pass


async def _last(load: grpc.aio.UnaryStreamCall) -> expert_pb2.LoadExpertsResponse:
    return [response async for response in load][-1]

"""Frames over real gRPC: every pair is computed or named with its reason, and every frame is
answered once.
"""

from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from moesaic.v1 import common_pb2, expert_pb2
from services.expert.grouped import GroupedExperts
from services.wire.received import ReceivedReply
from tests.expert.expert_client import (
    Carrier,
    Gate,
    ThreadGate,
    assert_close,
    expected_rows,
    expert_service,
)

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
INTERNAL = grpc.StatusCode.INTERNAL.value[0]

NOT_HOSTED = expert_pb2.PAIR_FAILURE_REASON_NOT_HOSTED
OVERLOADED = expert_pb2.PAIR_FAILURE_REASON_OVERLOADED
EXPIRED = expert_pb2.PAIR_FAILURE_REASON_EXPIRED
CANCELLED = expert_pb2.PAIR_FAILURE_REASON_CANCELLED


def failed(reply: ReceivedReply) -> dict[int, tuple[int, ...]]:
    return {failure.reason: failure.pairs for failure in reply.failures}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_rows_come_back_as_the_whole_model_would_compute_them(
    olmoe: Path, dtype: str, either_way: str
) -> None:
    async with expert_service(olmoe, dtype=dtype, preload="all") as service:
        stream = service.open_stream()
        rows = torch.randn(5, 32).to(getattr(torch, dtype))
        pairs = [(4, 7), (0, 1), (2, 7), (2, 0), (4, 1), (1, 7), (3, 3)]
        for layer in (0, 2):
            await stream.send(layer, rows, pairs, layer=layer)
            reply = await stream.reply()
            assert (reply.frame_id, reply.batch_frames, reply.failures) == (layer, 1, ())
            expected = expected_rows(service.parts.checkpoint, layer, rows, pairs)
            computed = reply.rows(rows.dtype, 32)
            assert_close(computed, expected)
            if either_way == "torch":
                assert torch.equal(computed, expected)
            assert reply.timings.decode_nanos > 0
            assert reply.timings.compute_nanos > 0


async def test_frames_that_wait_for_a_layer_are_computed_together_whoever_sent_them(
    olmoe: Path, monkeypatch: pytest.MonkeyPatch, torch_alone: None
) -> None:
    gate = Gate(monkeypatch)
    async with expert_service(olmoe, preload="all") as service:
        one, other = service.open_stream(), service.open_stream()
        rows = torch.randn(4, 32)
        await one.send(0, rows[:1], [(0, 0)])
        await gate.began.acquire()
        await one.send(1, rows[:2], [(0, 1), (1, 2)])
        await other.send(7, rows[2:], [(0, 2), (1, 1)])
        await other.send(8, rows[2:], [(0, 3)], layer=2)
        for _ in range(4):
            await gate.queued.acquire()
        gate.opened.set()
        replies = [await one.reply(), await one.reply(), await other.reply(), await other.reply()]
        assert gate.batches == [1, 2, 1]
        assert [(reply.frame_id, reply.batch_frames) for reply in replies] == [
            (0, 1),
            (1, 2),
            (7, 2),
            (8, 1),
        ]
        # The two frames' rows of an expert went through one product, so together they are bit for
        # bit the module's.
        pairs = [(0, 1), (1, 2), (2, 2), (3, 1)]
        computed = torch.cat([reply.rows(torch.float32, 32) for reply in replies[1:3]])
        assert torch.equal(computed, expected_rows(service.parts.checkpoint, 1, rows, pairs))
        assert replies[1].timings.queue_nanos > 0


async def test_pairs_that_are_not_hosted_are_named_while_the_others_are_served(
    olmoe: Path,
    carrier: Carrier,
) -> None:
    async with expert_service(olmoe, carrier) as service:
        await service.load((1, 2), (1, 5))
        stream, rows = service.open_stream(), torch.randn(2, 32)
        pairs = [(0, 5), (0, 0), (1, 2), (1, 7)]
        await stream.send(3, rows, pairs)
        reply = await stream.reply()
        assert failed(reply) == {NOT_HOSTED: (1, 3)}
        expected = expected_rows(service.parts.checkpoint, 1, rows, [(0, 5), (1, 2)])
        assert_close(reply.rows(torch.float32, 32), expected)
        await stream.send(4, rows, pairs, layer=0)
        reply = await stream.reply()
        assert failed(reply) == {NOT_HOSTED: (0, 1, 2, 3)}
        assert not reply.rows_bytes


async def test_an_empty_frame_is_answered(olmoe: Path, carrier: Carrier) -> None:
    async with expert_service(olmoe, carrier, preload="all") as service:
        stream = service.open_stream()
        await stream.send(3, torch.empty(0, 32), [])
        reply = await stream.reply()
        assert (reply.frame_id, reply.failures, reply.error, bytes(reply.rows_bytes)) == (
            3,
            (),
            None,
            b"",
        )


async def test_a_waiting_frame_is_dropped_when_all_its_requests_are_cancelled(
    olmoe: Path,
    python_carrier: Carrier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(monkeypatch)
    async with expert_service(olmoe, python_carrier, preload="all") as service:
        stream, rows = service.open_stream(), torch.randn(1, 32)
        await stream.send(0, rows, [(0, 0)], requests=[1])
        await gate.began.acquire()
        await stream.send(1, rows, [(0, 0)], requests=[1, 2])
        await stream.send(2, rows, [(0, 0), (0, 1)], requests=[1])
        await stream.send(3, rows, [(0, 0)])
        await stream.cancel(1)
        reply = await stream.reply()
        assert (reply.frame_id, failed(reply)) == (2, {CANCELLED: (0, 1)})
        await stream.cancel(2)
        reply = await stream.reply()
        assert (reply.frame_id, failed(reply)) == (1, {CANCELLED: (0,)})
        gate.opened.set()
        assert [(await stream.reply()).frame_id for _ in range(2)] == [0, 3]
        assert gate.batches == [1, 1]


async def test_a_frame_whose_time_is_up_while_it_waits_is_not_computed(
    olmoe: Path,
    python_carrier: Carrier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(monkeypatch)
    async with expert_service(olmoe, python_carrier, preload="all") as service:
        stream, rows = service.open_stream(), torch.randn(1, 32)
        await stream.send(0, rows, [(0, 0)])
        await gate.began.acquire()
        await stream.send(1, rows, [(0, 0), (0, 1)], remaining_nanos=1)
        await stream.send(2, rows, [(0, 0)])
        for _ in range(3):
            await gate.queued.acquire()
        gate.opened.set()
        replies = {reply.frame_id: reply for reply in [await stream.reply() for _ in range(3)]}
        assert failed(replies[1]) == {EXPIRED: (0, 1)}
        assert failed(replies[0]) == failed(replies[2]) == {}
        assert gate.batches == [1, 1]


async def test_a_full_queue_refuses_at_once(
    olmoe: Path,
    python_carrier: Carrier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(monkeypatch)
    async with expert_service(olmoe, python_carrier, preload="all", max_waiting_pairs=3) as service:
        stream, rows = service.open_stream(), torch.randn(1, 32)
        await stream.send(0, rows, [(0, 0)])
        await gate.began.acquire()
        await stream.send(1, rows, [(0, 0)] * 2)
        await stream.send(2, rows, [(0, 0)] * 2)
        reply = await stream.reply()
        assert (reply.frame_id, failed(reply)) == (2, {OVERLOADED: (0, 1)})
        await stream.send(3, rows, [(0, 0)])
        gate.opened.set()
        assert [(await stream.reply()).frame_id for _ in range(3)] == [0, 1, 3]


async def test_a_single_frame_is_let_into_an_empty_queue(
    olmoe: Path,
    carrier: Carrier,
) -> None:
    async with expert_service(olmoe, carrier, preload="all", max_waiting_pairs=3) as service:
        stream = service.open_stream()
        await stream.send(0, torch.randn(1, 32), [(0, 0)] * 9)
        assert len((await stream.reply()).rows(torch.float32, 32)) == 9


async def test_credit_comes_first_and_grows_with_every_answer(
    olmoe: Path,
    carrier: Carrier,
) -> None:
    async with expert_service(olmoe, carrier, preload="all", max_waiting_pairs=50_000) as service:
        stream, rows = service.open_stream(), torch.randn(1, 32)
        first = await stream.receive()
        window = first.granted_pairs
        assert first.reply is None
        assert window == 2 * (8 << 20) // (
            32 * 2
        )  # the largest frame fits: bfloat16 rows, two experts of each
        await stream.send(0, rows, [(0, 0)] * 3)
        assert (await stream.receive()).granted_pairs == window + 3


async def test_who_overdraws_the_credit_is_overloaded(
    olmoe: Path,
    python_carrier: Carrier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(monkeypatch)
    async with expert_service(
        olmoe,
        python_carrier,
        preload="all",
        max_waiting_pairs=140,
        max_frame_bytes=4096,
    ) as service:
        stream, rows = service.open_stream(), torch.randn(1, 32)
        assert (await stream.receive()).granted_pairs == 140
        for frame_id in range(5):
            await stream.send(frame_id, rows, [(0, 0)] * 28)
        await gate.began.acquire()
        await stream.send(5, rows, [(0, 0)])
        reply = await stream.reply()
        assert (reply.frame_id, failed(reply)) == (5, {OVERLOADED: (0,)})
        assert stream.granted_pairs == 141
        gate.opened.set()
        assert [(await stream.reply()).frame_id for _ in range(5)] == [0, 1, 2, 3, 4]
        assert stream.granted_pairs == 281


FRAME: dict[str, Any] = {
    "layer": 1,
    "dtype": common_pb2.ELEMENT_TYPE_FLOAT32,
    "num_rows": 2,
    "pair_rows": bytes(8),
    "pair_experts": bytes(8),
    "remaining_nanos": 10**10,
    "rows": bytes(256),
}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"layer": 9}, "layer is 9; the layers with experts are 0 to 2"),
        ({"dtype": 0}, "dtype is 0; it must be float32 (1), bfloat16 (2) or float16 (3)"),
        (
            {"dtype": common_pb2.ELEMENT_TYPE_FLOAT16},
            "dtype is float16; this service takes float32 or bfloat16",
        ),
        ({"num_rows": 3}, "rows has 256 bytes, not 384 for 3 of 32"),
        ({"rows": bytes(252)}, "rows has 252 bytes, not 256 for 2 of 32"),
        ({"rows": b""}, "rows has 0 bytes, not 256 for 2 of 32"),
        ({"pair_rows": b"\2\0\0\0\0\0\0\0"}, "pair_rows has 2; it must be below 2"),
        ({"pair_experts": b"\0\0\0\0\x08\0\0\0"}, "pair_experts has 8; it must be below 8"),
        (
            {"pair_experts": b"\xff\xff\xff\xff\0\0\0\0"},
            "pair_experts has 4294967295; it must be below 8",
        ),
        ({"pair_rows": bytes(7)}, "pair_rows has 7 bytes, which is no multiple of 4"),
        ({"pair_experts": bytes(4)}, "pair_experts has 1 pairs, pair_rows 2"),
        (
            {"num_rows": 40, "rows": bytes(40 * 128)},
            "the message has 5160 bytes; max_frame_bytes is 4096",
        ),
        (
            {"pair_rows": bytes(4 * 33), "pair_experts": bytes(4 * 33)},
            "pair_rows has 33 pairs; a reply of max_frame_bytes holds 32",
        ),
        (
            {
                "pair_rows": bytes(4 * 65),
                "pair_experts": bytes(4 * 65),
                "pair_weights": bytes(4 * 65),
            },
            "pair_rows has 65 pairs; with pair_weights a frame may have 64",
        ),
        ({"pair_weights": bytes(4)}, "pair_weights has 1 pairs, pair_rows 2"),
        ({"pair_weights": bytes(12)}, "pair_weights has 3 pairs, pair_rows 2"),
        ({"pair_weights": bytes(7)}, "pair_weights has 7 bytes, which is no multiple of 4"),
        ({"pair_weights": b"\0\0\xc0\x7f\0\0\0\0"}, "pair_weights has a weight that is not finite"),
        ({"pair_weights": b"\0\0\0\0\0\0\x80\xff"}, "pair_weights has a weight that is not finite"),
    ],
)
async def test_a_frame_that_breaks_the_contract_is_refused_and_the_stream_goes_on(
    olmoe: Path,
    carrier: Carrier,
    broken: dict[str, Any],
    message: str,
) -> None:
    async with expert_service(
        olmoe,
        carrier,
        preload="all",
        max_frame_bytes=4096,
        max_waiting_pairs=200,
    ) as service:
        stream = service.open_stream()
        frame = expert_pb2.Frame(frame_id=5, **FRAME | broken)
        await stream.call.write(expert_pb2.DispatchRequest(frame=frame).SerializeToString())
        reply = await stream.reply()
        assert reply.error is not None
        assert (reply.frame_id, reply.error.status_code, reply.error.message) == (
            5,
            INVALID_ARGUMENT,
            message,
        )
        assert stream.granted_pairs == 200 + len(frame.pair_experts) // 4
        await stream.send(6, torch.randn(1, 32), [(0, 0)])
        reply = await stream.reply()
        assert (reply.frame_id, reply.error, len(reply.rows(torch.float32, 32))) == (6, None, 1)


@pytest.mark.parametrize("data", [b"", b"\x0a\x05abc", b"\xff\xff"])
async def test_bytes_that_are_no_message_end_the_stream_after_the_frames_before(
    olmoe: Path,
    carrier: Carrier,
    data: bytes,
) -> None:
    async with expert_service(olmoe, carrier, preload="all") as service:
        stream = service.open_stream()
        await stream.send(6, torch.randn(1, 32), [(0, 0)])
        await stream.call.write(data)
        assert (await stream.reply()).frame_id == 6
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.call.read()
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_above_the_limit_is_refused_by_the_transport(olmoe: Path) -> None:
    async with expert_service(olmoe, preload="all") as service:
        call = grpc.aio.insecure_channel(f"127.0.0.1:{service.port}")
        async with call as channel:
            stream = channel.stream_stream("/moesaic.v1.ExpertService/Dispatch")()
            await stream.read()
            await stream.write(bytes(17 << 20))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stream.read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await service.health() == 1


async def test_a_batch_that_fails_fails_its_frames_alone(
    olmoe: Path,
    python_carrier: Carrier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with expert_service(olmoe, python_carrier, preload="all") as service:
        stream = service.open_stream()
        monkeypatch.setattr(GroupedExperts, "__call__", lambda *_: torch.zeros(0)[1])
        await stream.send(0, torch.randn(1, 32), [(0, 0)])
        reply = await stream.reply()
        assert reply.error is not None
        assert reply.error.status_code == INTERNAL
        assert "computing layer 1 failed" in caplog.text
        monkeypatch.undo()
        await stream.send(1, torch.randn(1, 32), [(0, 0)])
        assert (await stream.reply()).error is None


async def test_health_is_answered_while_a_batch_is_computed(
    olmoe: Path,
    python_carrier: Carrier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = ThreadGate(monkeypatch, GroupedExperts, "__call__", 1)
    async with expert_service(olmoe, python_carrier, preload="all") as service:
        stream = service.open_stream()
        await stream.send(0, torch.randn(1, 32), [(0, 0)])
        await gate.reached.wait()
        assert await service.health() == 1
        gate.open()
        assert (await stream.reply()).error is None


async def test_a_stream_that_is_closed_by_its_sender_gets_its_answers_first(
    olmoe: Path,
    python_carrier: Carrier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(monkeypatch)
    async with expert_service(olmoe, python_carrier, preload="all") as service:
        stream = service.open_stream()
        await stream.send(0, torch.randn(1, 32), [(0, 0)])
        await stream.call.done_writing()
        await gate.began.acquire()
        gate.opened.set()
        assert (await stream.reply()).frame_id == 0
        assert await stream.call.read() is grpc.aio.EOF
        assert await stream.call.code() is grpc.StatusCode.OK


async def test_frames_of_a_sender_that_is_gone_are_not_computed(
    olmoe: Path,
    python_carrier: Carrier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate(monkeypatch)
    async with expert_service(olmoe, python_carrier, preload="all") as service:
        gone, other = service.open_stream(), service.open_stream()
        await gone.send(0, torch.randn(1, 32), [(0, 0)])
        await gate.began.acquire()
        await gone.send(1, torch.randn(1, 32), [(0, 0)])
        for _ in range(2):
            await gate.queued.acquire()
        gone.call.cancel()
        await gate.dropped.acquire()  # the one that waited; the other is being computed
        await other.send(2, torch.randn(1, 32), [(0, 0)])
        await gate.queued.acquire()
        gate.opened.set()
        assert (await other.reply()).batch_frames == 1
        assert gate.batches == [1, 1]
    assert "unforeseen" not in caplog.text


async def test_queued_frames_are_finished_when_the_service_is_told_to_stop(
    olmoe: Path,
    python_carrier: Carrier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(monkeypatch)
    async with expert_service(olmoe, python_carrier, preload="all") as service:
        stream = service.open_stream()
        watch = service.stub.WatchHosting(expert_pb2.WatchHostingRequest())
        await watch.read()
        await stream.send(0, torch.randn(1, 32), [(0, 0)])
        await gate.began.acquire()
        await stream.send(1, torch.randn(1, 32), [(0, 0)])
        for _ in range(2):
            await gate.queued.acquire()
        service.drain()
        gate.opened.set()
        assert [(await stream.reply()).frame_id for _ in range(2)] == [0, 1]
        assert await stream.call.read() is grpc.aio.EOF
        assert await watch.read() is grpc.aio.EOF

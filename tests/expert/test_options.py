"""What a frame may ask for beyond the usual: sums of its rows' pairs, and rows of a
narrower type.
"""

from pathlib import Path

import pytest
import torch

from moesaic.v1 import common_pb2, expert_pb2
from tests.expert.expert_client import Gate, assert_close, expected_rows, expert_service
from tests.expert.test_dispatch import NOT_HOSTED, failed

# Unordered, with a row of one pair, one of three, and one of none.
PAIRS = [(2, 7), (0, 1), (2, 0), (3, 3), (2, 1)]
WEIGHTS = [0.5, 0.25, -1.5, 2.0, 0.1]
NUM_ROWS = 4


def summed(
    outputs: torch.Tensor, pairs: list[tuple[int, int]], weights: list[float], num_rows: int
) -> torch.Tensor:
    """The weighted sums of unweighted outputs, in the plainest way there is."""
    sums = torch.zeros(num_rows, outputs.shape[1], dtype=torch.float64)
    for output, (row, _), weight in zip(outputs, pairs, weights, strict=True):
        sums[row] += output.double() * weight
    return sums


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_a_frame_with_weights_gets_each_row_s_sum(
    olmoe: Path, dtype: str, either_way: str
) -> None:
    async with expert_service(olmoe, dtype=dtype, preload="all") as service:
        stream, rows = service.open_stream(), torch.randn(NUM_ROWS, 32).to(getattr(torch, dtype))
        await stream.send(0, rows, PAIRS)
        outputs = (await stream.reply()).rows(rows.dtype, 32)
        await stream.send(1, rows, PAIRS, weights=WEIGHTS)
        reply = await stream.reply()
        assert (reply.error, reply.failures) == (None, ())
        sums = reply.rows(rows.dtype, 32)
        assert sums.shape == (NUM_ROWS, 32)
        assert torch.equal(sums[1], torch.zeros(32, dtype=rows.dtype))
        assert_close(outputs, expected_rows(service.parts.checkpoint, 1, rows, PAIRS))
        exact = summed(outputs, PAIRS, WEIGHTS, NUM_ROWS)
        if (
            dtype == "bfloat16"
        ):  # rounded once: nothing lies further off than half a step of the type
            assert ((sums.double() - exact).abs() <= exact.abs() * 2**-8).all()
        else:
            assert_close(sums, exact.float())


async def test_frames_with_and_without_weights_of_either_type_are_computed_together(
    olmoe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    async with expert_service(olmoe, preload="all") as service:
        stream, rows = service.open_stream(), torch.randn(NUM_ROWS, 32)
        narrow = rows.bfloat16()
        await stream.send(0, rows[:1], [(0, 0)])
        await gate.began.acquire()
        await stream.send(1, rows, PAIRS, weights=WEIGHTS)
        await stream.send(2, narrow, PAIRS)
        await stream.send(3, narrow, PAIRS, weights=WEIGHTS)
        await stream.send(4, rows, PAIRS)
        for _ in range(5):
            await gate.queued.acquire()
        gate.opened.set()
        await stream.reply()
        sums, narrow_outputs, narrow_sums, outputs = [await stream.reply() for _ in range(4)]
        assert gate.batches == [1, 4]
        checkpoint = service.parts.checkpoint
        wide = expected_rows(checkpoint, 1, rows, PAIRS)
        assert_close(outputs.rows(torch.float32, 32), wide)
        assert_close(sums.rows(torch.float32, 32), summed(wide, PAIRS, WEIGHTS, NUM_ROWS).float())
        widened = expected_rows(checkpoint, 1, narrow.float(), PAIRS)
        assert_close(narrow_outputs.rows(torch.bfloat16, 32), widened.bfloat16())
        assert_close(
            narrow_sums.rows(torch.bfloat16, 32),
            summed(widened, PAIRS, WEIGHTS, NUM_ROWS).bfloat16(),
        )


async def test_narrow_rows_are_widened_computed_and_rounded_once(
    olmoe: Path, torch_alone: None
) -> None:
    async with expert_service(olmoe, preload="all") as service:
        stream, rows = service.open_stream(), torch.randn(NUM_ROWS, 32).bfloat16()
        await stream.send(0, rows, PAIRS)
        widened = expected_rows(service.parts.checkpoint, 1, rows.float(), PAIRS)
        assert torch.equal((await stream.reply()).rows(torch.bfloat16, 32), widened.bfloat16())


async def test_sums_leave_out_pairs_that_are_not_hosted(olmoe: Path) -> None:
    async with expert_service(olmoe) as service:
        await service.load((1, 7), (1, 1))
        stream, rows = service.open_stream(), torch.randn(NUM_ROWS, 32)
        await stream.send(0, rows, PAIRS, weights=WEIGHTS)
        reply = await stream.reply()
        assert failed(reply) == {NOT_HOSTED: (2, 3)}
        served = [0, 1, 4]
        pairs, weights = [PAIRS[place] for place in served], [WEIGHTS[place] for place in served]
        outputs = expected_rows(service.parts.checkpoint, 1, rows, pairs)
        assert_close(
            reply.rows(torch.float32, 32), summed(outputs, pairs, weights, NUM_ROWS).float()
        )
        await stream.send(1, rows, PAIRS, weights=WEIGHTS, layer=2)
        reply = await stream.reply()
        assert failed(reply) == {NOT_HOSTED: (0, 1, 2, 3, 4)}
        assert not reply.rows_bytes


async def test_a_frame_of_sums_may_have_more_pairs_than_a_reply_has_room_for(olmoe: Path) -> None:
    async with expert_service(olmoe, preload="all", max_frame_bytes=4096) as service:
        stream, rows = service.open_stream(), torch.randn(24, 32)
        pairs = [(row, expert) for row in range(24) for expert in (2, 5)]
        await stream.send(0, rows, pairs, weights=[1.0] * len(pairs))
        reply = await stream.reply()
        assert reply.error is None
        assert len(reply.rows(torch.float32, 32)) == 24


@pytest.mark.parametrize(
    ("dtype", "taken"),
    [
        ("float32", [common_pb2.ELEMENT_TYPE_FLOAT32, common_pb2.ELEMENT_TYPE_BFLOAT16]),
        ("bfloat16", [common_pb2.ELEMENT_TYPE_BFLOAT16]),
        ("float16", [common_pb2.ELEMENT_TYPE_FLOAT16]),
    ],
)
async def test_a_service_says_which_types_it_takes_and_that_it_sums(
    olmoe: Path, dtype: str, taken: list[int]
) -> None:
    async with expert_service(olmoe, dtype=dtype) as service:
        described = await service.stub.Describe(expert_pb2.ExpertServiceDescribeRequest())
        assert list(described.frame_dtypes) == taken
        assert described.sums_pairs

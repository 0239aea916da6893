"""What one frame does wrong is answered to its sender: the frames beside it, and the
stream, go on.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc
import numpy as np
import pytest
import torch

from services.expert.admission import Slots
from services.expert.batcher import Batcher
from services.expert.compute import Computed, FrameWork
from services.expert.dispatch_stream import DispatchStream
from services.model.weighted_sums import Positions
from services.wire.frames import decode_response, encode_frame
from services.wire.received import ReceivedFrame, ReceivedReply
from tests.expert.test_batcher import CONTRACT, HOUR_NANOS

INTERNAL = grpc.StatusCode.INTERNAL.value[0]
POISON = 3  # the number of pairs of a frame that is to fail


class OddSlots(Slots):
    """Fails on frames of as many pairs."""

    def look_up(self, frame: ReceivedFrame) -> Positions:
        if len(frame.pair_rows) == POISON:
            raise KeyError("secret")
        return super().look_up(frame)


async def compute(batch: Sequence[FrameWork]) -> Computed:
    return Computed([torch.zeros(len(work.slots), 2) for work in batch], 1)


async def compute_oddly(batch: Sequence[FrameWork]) -> Computed:
    nowhere = torch.empty(2, 0, dtype=torch.long)
    odd = torch.sparse_coo_tensor(nowhere, torch.empty(0), (POISON, 2))  # which cannot be written
    return Computed(
        [odd if len(work.slots) == POISON else torch.zeros(len(work.slots), 2) for work in batch], 1
    )


def frame(number: int, num_pairs: int) -> bytes:
    indices = np.zeros(num_pairs, np.uint32)
    return encode_frame(
        frame_id=number,
        layer=0,
        rows=torch.zeros(1, 2),
        pair_rows=indices,
        pair_experts=indices,
        remaining_nanos=HOUR_NANOS,
        traceparent="00-\x1b[2J",
        requests=(),
        checksum=True,
    )


async def answers(slots: Slots, batcher: Batcher, *frames: bytes) -> dict[int, ReceivedReply]:
    """What one stream answers to frames, by their number."""
    slots.put(0, 0, 0)
    written: list[bytes] = []

    async def write(data: bytes) -> None:
        written.append(data)

    async def requests() -> AsyncIterator[bytes]:
        for each in frames:
            yield each

    stream = DispatchStream(batcher, CONTRACT, slots, window_pairs=100)
    running = asyncio.create_task(batcher.run())
    async with asyncio.timeout(10):
        await stream.serve(requests(), write, asyncio.Event())
    assert not running.done()
    running.cancel()
    responses = [decode_response(data) for data in written]
    assert max(response.granted_pairs for response in responses) == 100 + sum(
        range(1, len(frames) + 1)
    )
    return {
        response.reply.frame_id: response.reply
        for response in responses
        if response.reply is not None
    }


@pytest.mark.parametrize("is_odd", ["slots", "results"])
async def test_a_frame_that_fails_unforeseen_is_refused_and_those_beside_it_are_served(
    is_odd: str,
) -> None:
    slots = (OddSlots if is_odd == "slots" else Slots)(CONTRACT)
    batcher = Batcher(compute_oddly if is_odd == "results" else compute, max_waiting_pairs=100)
    replies = await answers(slots, batcher, *[frame(number, number) for number in range(1, 6)])
    assert replies.keys() == {1, 2, 3, 4, 5}
    refused = replies.pop(POISON)
    assert refused.error is not None
    assert refused.error.status_code == INTERNAL
    assert "secret" not in refused.error.message
    assert refused.has_checksum
    for number, reply in replies.items():
        assert reply.error is None
        assert reply.num_rows(torch.float32, 2) == number

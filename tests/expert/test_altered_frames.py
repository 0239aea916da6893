"""Frames with a checksum, on a real stream: answered with one, and refused when their bytes were
altered on the way.
"""

from pathlib import Path

import grpc
import numpy as np
import pytest
import torch

from services.wire.frames import encode_frame
from tests.expert.expert_client import (
    MINUTE_NANOS,
    Carrier,
    assert_close,
    expected_rows,
    expert_service,
)


def frame(rows: torch.Tensor, *, expert: int = 3, layer: int = 1, checksum: bool = True) -> bytes:
    """The first row to one expert."""
    return encode_frame(
        frame_id=5,
        layer=layer,
        rows=rows,
        pair_rows=np.array([0], np.uint32),
        pair_experts=np.array([expert], np.uint32),
        remaining_nanos=MINUTE_NANOS,
        traceparent="",
        requests=(),
        checksum=checksum,
    )


@pytest.mark.parametrize("checksum", [True, False])
async def test_a_frame_is_answered_with_a_checksum_where_it_has_one(
    olmoe: Path, carrier: Carrier, checksum: bool
) -> None:
    async with expert_service(olmoe, carrier, preload="all") as service:
        stream, rows = service.open_stream(), torch.randn(2, 32)
        await stream.call.write(frame(rows, checksum=checksum))
        reply = await stream.reply()
        assert (reply.error, reply.has_checksum) == (None, checksum)
        expected = expected_rows(service.parts.checkpoint, 1, rows, [(0, 3)])
        assert_close(reply.rows(torch.float32, 32), expected)


async def test_an_altered_frame_is_not_computed_and_the_stream_goes_on(
    olmoe: Path, carrier: Carrier
) -> None:
    async with expert_service(olmoe, carrier, preload="all") as service:
        stream, rows = service.open_stream(), torch.randn(2, 32)
        altered = bytearray(frame(rows))
        altered[-1] ^= 1
        await stream.call.write(bytes(altered))
        lost = await stream.reply()
        assert lost.error is not None
        assert (lost.frame_id, lost.error.status_code) == (5, grpc.StatusCode.DATA_LOSS.value[0])
        assert lost.has_checksum
        granted = stream.granted_pairs
        await stream.call.write(frame(rows))
        assert (await stream.reply()).error is None
        assert stream.granted_pairs == granted + 1


async def test_a_refusal_by_the_contract_has_a_checksum_too(olmoe: Path, carrier: Carrier) -> None:
    async with expert_service(olmoe, carrier, preload="all") as service:
        stream, rows = service.open_stream(), torch.randn(2, 32)
        for data in (frame(rows, layer=9), frame(rows, expert=8), frame(rows[:, :7])):
            await stream.call.write(data)
            reply = await stream.reply()
            assert reply.error is not None
            assert (reply.error.status_code, reply.has_checksum) == (
                grpc.StatusCode.INVALID_ARGUMENT.value[0],
                True,
            )

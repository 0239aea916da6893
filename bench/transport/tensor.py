"""The tensor stream frame by frame: rows out to expert services and as many rows back, by the
router's own streams.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from bench.transport.floor import MessageBytes
from services.model.checkpoint import Checkpoint
from services.router.dispatch.placement import MAX_FRAME_BYTES
from services.router.peers.peer import ExpertPeer
from services.wire.frames import encode_frame, encode_reply
from services.wire.outcomes import Timings

# Half of a frame is left for what surrounds the rows, as the router does it.
MAX_ROWS_BYTES = MAX_FRAME_BYTES // 2
# As a service times a frame that takes no time.
TIMINGS = Timings(*[20_000] * len(Timings._fields))


class FrameClient:
    """A client of expert services that are all connected, as a router with several lanes is."""

    def __init__(self, checkpoint: Checkpoint, peers: Sequence[ExpertPeer]) -> None:
        self._peers = peers
        self._dtype = checkpoint.dtype
        self._hidden_size = checkpoint.hidden_size

    async def exchange(self, frames: Sequence[torch.Tensor]) -> None:
        """Send the frames to each of the services, and return when the rows of all of them are
        readable.
        """
        answers = [
            peer.streams[0].send(partial(encode, rows), len(rows), 1)
            for rows in frames
            for peer in self._peers
        ]
        for answered in answers:
            answer = await answered
            answer.reply.rows(self._dtype, self._hidden_size)


def frames_of(checkpoint: Checkpoint, num_bytes: int) -> list[torch.Tensor]:
    """Rows of so many bytes, cut into frames as the router would cut them."""
    row_bytes = checkpoint.hidden_size * checkpoint.dtype.itemsize
    rows = torch.zeros(num_bytes // row_bytes, checkpoint.hidden_size, dtype=checkpoint.dtype)
    return list(rows.split(MAX_ROWS_BYTES // row_bytes))


def encode(rows: torch.Tensor, frame_id: int, remaining_nanos: int) -> bytes:
    """A frame that has one expert compute each of the rows."""
    num_rows = len(rows)
    return encode_frame(
        frame_id=frame_id,
        layer=0,
        rows=rows,
        pair_rows=np.arange(num_rows, dtype=np.uint32),
        pair_experts=np.zeros(num_rows, dtype=np.uint32),
        remaining_nanos=remaining_nanos,
        traceparent="",
        requests=(1,),
        checksum=True,  # as a router does unless told otherwise
    )


def message_bytes(rows: torch.Tensor) -> MessageBytes:
    """What a frame of these rows takes, and what its reply does."""
    reply = encode_reply(
        frame_id=1, rows=rows, timings=TIMINGS, batch_frames=1, granted_pairs=1, checksum=True
    )
    return len(encode(rows, 1, 1 << 32)), len(reply)

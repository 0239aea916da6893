"""Frames as bytes, in every layout that the two ways have to agree on."""

from collections.abc import Sequence

import numpy as np
import torch

from services.wire.frames import encode_frame
from tests.expert.expert_client import MINUTE_NANOS


def encoded(
    frame_id: int,
    rows: torch.Tensor,
    pairs: Sequence[tuple[int, int]],
    *,
    layer: int = 1,
    remaining_nanos: int = MINUTE_NANOS,
    requests: Sequence[int] = (),
    traceparent: str = "",
    weights: Sequence[float] | None = None,
    checksum: bool = False,
) -> bytes:
    """A message with a frame; `pairs` are (row, expert)."""
    return encode_frame(
        frame_id=frame_id,
        layer=layer,
        rows=rows,
        pair_rows=np.array([row for row, _ in pairs], np.uint32),
        pair_experts=np.array([expert for _, expert in pairs], np.uint32),
        remaining_nanos=remaining_nanos,
        traceparent=traceparent,
        requests=requests,
        pair_weights=None if weights is None else np.array(weights, np.float32),
        checksum=checksum,
    )

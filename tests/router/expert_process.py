"""An expert service in a process of its own, to be stopped, continued and killed; and frames for
it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import torch

from services.wire.frames import encode_frame
from tests.service_process import service_process


@asynccontextmanager
async def expert_process(model: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with all experts; yields at once, while it starts."""
    flags = (
        "--listen",
        f"127.0.0.1:{port}",
        "--model",
        str(model),
        "--preload",
        "all",
        "--threads",
        "1",
    )
    async with service_process("expert", *flags, stderr=asyncio.subprocess.DEVNULL) as (running, _):
        yield running


def one_pair(hidden_size: int, num_rows: int = 1) -> Callable[[int, int], bytes]:
    """What writes a frame of so many rows, the first of them for expert 0 of layer 1."""

    def encode(frame_id: int, remaining_nanos: int) -> bytes:
        return encode_frame(
            frame_id=frame_id,
            layer=1,
            rows=torch.ones(num_rows, hidden_size),
            pair_rows=np.zeros(1, np.uint32),
            pair_experts=np.zeros(1, np.uint32),
            remaining_nanos=remaining_nanos,
            traceparent="",
            requests=(1,),
        )

    return encode

"""An expert service in a process of its own, to be stopped, continued and killed; and frames for it."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import torch

from services.wire.frames import encode_frame

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@asynccontextmanager
async def expert_process(model: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with all experts; yields at once, while it starts."""
    flags = ("--listen", f"127.0.0.1:{port}", "--model", str(model), "--preload", "all", "--threads", "1")
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.expert", *flags),
        stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=ROOT,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


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

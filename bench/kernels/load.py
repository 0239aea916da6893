"""The worker processes that compute with the compiled kernels and without, as whoever measures sees
them.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.harness.failure import BenchFailed
from bench.kernels.operations import NUM_KEYS
from services import kernels
from services.kernels.level import VARIABLE
from services.runtime.process import THREAD_VARIABLES

TORCH, KERNELS = "torch", "kernels"
# A line holds the tokens of all texts; asyncio's own limit is 64 KiB.
MAX_LINE_BYTES = 1 << 24


class KernelLoad:
    """One worker of one thread; it sleeps when it is not asked. Every call raises BenchFailed when
    it has ended.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.level = ""  # the instruction set in use, "off" without kernels

    async def prepare(self, num_rows: int, num_keys: int = NUM_KEYS) -> list[str]:
        """The names of the operations, which are on so many rows from now on, and so many keys of
        each.
        """
        names: list[str] = await self._ask(rows=num_rows, keys=num_keys)
        return names

    async def time(self, operation: str) -> float:
        """Microseconds of CPU time that the operation takes."""
        micros: float = await self._ask(operation=operation)
        return micros

    async def logits(
        self, prompts: Sequence[Sequence[int]], text: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Logits in float32 of each token of `text`, which goes on from `prompts`: [prompts,
        tokens, vocabulary].
        """
        with TemporaryDirectory() as folder:
            file = Path(folder) / "logits"
            await self._ask(prompts=prompts, text=text, file=str(file))
            found: torch.Tensor = torch.load(file, weights_only=True)
        return found

    async def answer(self) -> Any:
        """The worker's next line."""
        assert self._process.stdout is not None, "it is piped"
        line = await self._process.stdout.readline()
        if not line:
            raise BenchFailed("a worker ended; what it said stands above")
        return json.loads(line)

    async def _ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None, "it is piped"
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return await self.answer()


@asynccontextmanager
async def kernels_running(
    model: Path, dtype: torch.dtype, names: Sequence[str] = (TORCH, KERNELS)
) -> AsyncIterator[dict[str, KernelLoad]]:
    """A worker with torch alone and one with kernels, or those of the names, until the block ends.
    Raises BenchFailed without kernels.
    """
    if not kernels.AVAILABLE:  # the worker's environment is this process's
        raise BenchFailed(
            f"there are no compiled kernels, or {VARIABLE} is off; `pip install -e .` builds them"
        )
    processes: list[asyncio.subprocess.Process] = []
    try:
        loads = {}
        for name in names:
            processes.append(await _start(model, dtype, name))
            loads[name] = KernelLoad(processes[-1])
        for load in loads.values():
            load.level = await load.answer()
        yield loads
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _start(model: Path, dtype: torch.dtype, name: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
    if name == TORCH:
        environment[VARIABLE] = "off"
    return await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "bench.kernels.worker",
            str(model),
            str(dtype).removeprefix("torch."),
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        limit=MAX_LINE_BYTES,
    )

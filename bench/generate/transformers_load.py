"""What people would use instead: `transformers` in one process, with the settings that are best for
a batch.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness.failure import BenchFailed
from bench.rig.generated import Generated
from services.model.checkpoint import Checkpoint
from services.runtime.process import THREAD_VARIABLES

NUM_THREADS = (1, 2)
IMPLEMENTATIONS = ("eager", "grouped_mm", "batched_mm")
# batched_mm copies the expert's weights for every pair of the prompts; beyond this it is no
# candidate.
MAX_COPIED_BYTES = 2 << 30
# A line holds the tokens of 64 requests; asyncio's own limit is 64 KiB.
MAX_LINE_BYTES = 1 << 24


@dataclass(frozen=True)
class Setting:
    """How `transformers` is told to compute."""

    implementation: str
    num_threads: int

    def __str__(self) -> str:
        return (
            f"{self.implementation}, {self.num_threads} thread{'s' if self.num_threads > 1 else ''}"
        )


class TransformersLoad:
    """A worker process for each number of threads; the one that is not asked sleeps."""

    def __init__(
        self, workers: dict[int, asyncio.subprocess.Process], *, num_new_tokens: int
    ) -> None:
        self._workers = workers
        self._num_new_tokens = num_new_tokens

    async def generate(self, setting: Setting, prompts: Sequence[Sequence[int]]) -> Generated:
        """Continue the prompts as one static batch. Raises BenchFailed when the worker ended."""
        worker = self._workers[setting.num_threads]
        assert worker.stdin is not None, "it is piped"
        request = {
            "implementation": setting.implementation,
            "prompts": prompts,
            "num_new_tokens": self._num_new_tokens,
        }
        worker.stdin.write(json.dumps(request).encode() + b"\n")
        answer = await _answer(worker)
        token_seconds = [answer["token_seconds"]] * len(prompts)
        cpu_seconds = {"transformers": answer["cpu_seconds"]}
        return Generated(answer["seconds"], token_seconds, answer["token_ids"], cpu_seconds)


@asynccontextmanager
async def transformers_running(
    model: Path, *, num_new_tokens: int, num_threads: Sequence[int] = NUM_THREADS
) -> AsyncIterator[TransformersLoad]:
    """Workers that have loaded the model, one for each number of threads, until the block ends."""
    workers: dict[int, asyncio.subprocess.Process] = {}
    try:
        for count in num_threads:
            workers[count] = await _start(model, count)
        for worker in workers.values():
            await _answer(worker)
        yield TransformersLoad(workers, num_new_tokens=num_new_tokens)
    finally:
        for worker in workers.values():
            if worker.returncode is None:
                worker.kill()
            await worker.wait()


def settings_for(checkpoint: Checkpoint, num_prompt_tokens: int) -> list[Setting]:
    """Every setting that is a candidate for prompts of so many tokens in all."""
    copied = (
        num_prompt_tokens
        * checkpoint.num_experts_per_token
        * checkpoint.expert_bytes(checkpoint.moe_layers[0])
    )
    fitting = [
        name for name in IMPLEMENTATIONS if name != "batched_mm" or copied <= MAX_COPIED_BYTES
    ]
    return [Setting(name, num_threads) for name in fitting for num_threads in NUM_THREADS]


def best_by_threads(probes: Mapping[Setting, Generated]) -> list[Setting]:
    """The fastest setting for each number of threads.

    Both are measured on in turn: which of them is better depends on what else the machine does at
    the moment.
    """
    fastest = sorted(probes, key=lambda setting: probes[setting].seconds)
    return list({setting.num_threads: setting for setting in reversed(fastest)}.values())


async def _start(model: Path, num_threads: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.generate.transformers_worker", str(model), str(num_threads)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(num_threads))},
        limit=MAX_LINE_BYTES,
    )


async def _answer(worker: asyncio.subprocess.Process) -> Any:
    assert worker.stdout is not None, "it is piped"
    line = await worker.stdout.readline()
    if not line:
        raise BenchFailed("the transformers worker ended; what it said stands above")
    return json.loads(line)

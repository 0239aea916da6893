"""How soon the embedded model serves: what a first command of a user takes."""

import asyncio
import resource
import sys
import time
from dataclasses import dataclass, field

from bench.harness.failure import BenchFailed
from bench.harness.progress import Stages
from bench.real_size.served import served

PROMPT = "Once upon a time"


@dataclass(frozen=True)
class EmbeddedStarts:
    """Seconds of each round: from `moesaic serve` to ready, from `moesaic generate` to the first
    token, and of CPU that all processes of that one took until it had ended.
    """

    to_ready: list[float] = field(default_factory=list)
    to_first_token: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


async def embedded_starts(num_rounds: int, stages: Stages) -> EmbeddedStarts:
    """Start both commands, in turn; the first round, which fills caches, does not count."""
    found = EmbeddedStarts()
    with stages.stage("the embedded model starts", num_rounds + 1):
        for number in range(num_rounds + 1):
            async with served(None, coverage=1) as cluster:
                to_ready = cluster.seconds_to_ready
            before = _cpu_seconds()
            to_first_token = await _seconds_to_first_token()
            if number:
                found.to_ready.append(to_ready)
                found.to_first_token.append(to_first_token)
                found.cpu.append(_cpu_seconds() - before)
            stages.step()
    return found


async def _seconds_to_first_token() -> float:
    command = (sys.executable, "-P", "-m", "services.cli.main", "generate", PROMPT)
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None, "it is piped"
    text = await process.stdout.read(1)
    seconds = time.perf_counter() - began
    await process.stdout.read()
    if await process.wait() or not text:
        raise BenchFailed("moesaic generate failed")
    return seconds


def _cpu_seconds() -> float:
    """Of all processes that have ended, below this one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

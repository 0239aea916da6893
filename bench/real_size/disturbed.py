"""What clients notice of a service that is killed, and of experts that move afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bench.harness.failure import BenchFailed
from bench.hosting.admin import Admin, Key
from bench.hosting.findings import gaps_within
from bench.hosting.streams import Answer, Streams, requests_of
from bench.real_size.reading import experts_of, seconds_to_read
from bench.real_size.served import ServedCluster
from bench.real_size.sizes import Size
from services.cli.bench.statistics import percentile

NUM_STREAMS = 2
NUM_REQUESTS, NUM_PROMPT_TOKENS, NUM_NEW_TOKENS = 16, 64, 48
WHOLE_SECONDS = 300.0
POLL_SECONDS = 0.1
# A placement that has not changed for so long is taken to stay.
REST_SECONDS = 5.0
# Before anything is done, for the times between tokens that are compared with.
STEADY_SECONDS = 15.0
MOVE_SECONDS = 120.0
VICTIM = "expert-1"


@dataclass(frozen=True)
class Kill:
    """What a SIGKILL of one of two services did; silences in seconds.

    `longest_silence` is the longest time in which no stream got a token, `longest_gap` the longest
    in which any one of them waited for one; `whole_seconds` passed until every expert was covered
    again. `share_seconds` are those of reading the lost experts' files once.
    """

    size: Size
    coverage: int
    share_bytes: int
    share_seconds: float
    num_requests: int
    failures: Sequence[str]
    longest_silence: float
    longest_gap: float
    steady_p99: float
    whole_seconds: float


@dataclass(frozen=True)
class Moves:
    """What moving experts did to streams; seconds between tokens.

    `is_done` is false where the time was over before the experts were in place. `was_skewed` tells
    that the placement was even already, so that it was first made uneven.
    """

    size: Size
    num_moved: int
    seconds: float
    is_done: bool
    was_skewed: bool
    num_failed: int
    longest_gap: float
    steady_p99: float

    @property
    def bytes_per_second(self) -> float:
        """Weights that were read in their new places."""
        return self.num_moved * self.size.expert_bytes / self.seconds


async def killed(size: Size, model: Path, cluster: ServedCluster, coverage: int) -> Kill:
    """Kill a service while streams are served, and wait until all is as before."""
    async with _administered(cluster) as (admin, streams):
        lost = (await admin.hosted())[cluster.members[VICTIM].address]
        share_seconds = await asyncio.to_thread(seconds_to_read, experts_of(model, lost))
        async with streams.asking():
            await streams.until_answered(NUM_STREAMS)
            steady = time.perf_counter()
            await asyncio.sleep(STEADY_SECONDS)
            began = time.perf_counter()
            await cluster.kill(VICTIM)
            await _until_whole(admin, coverage, len(cluster.experts))
            whole = time.perf_counter()
            await streams.until_answered(NUM_STREAMS)
            ended = time.perf_counter()
        answers = streams.answers
        met = [answer for answer in answers if answer.ended > began and answer.began < ended]
        return Kill(
            size,
            coverage,
            len(lost) * size.expert_bytes,
            share_seconds,
            len(met),
            [answer.failure for answer in met if answer.failure is not None],
            longest_silence(answers, began, ended),
            max(longest_silence([answer], began, ended) for answer in met),
            percentile(gaps_within(answers, steady, began), 99),
            whole - began,
        )


async def moved(size: Size, cluster: ServedCluster) -> Moves:
    """Have experts spread evenly while streams are served, by as many moves as that takes."""
    async with _administered(cluster) as (admin, streams):
        await _until_at_rest(admin)
        was_skewed = await _make_uneven(admin)
        async with streams.asking():
            await streams.until_answered(NUM_STREAMS)
            steady = time.perf_counter()
            await asyncio.sleep(STEADY_SECONDS)
            before, began = await admin.hosted(), time.perf_counter()
            is_done = await _spread(admin)
            ended = time.perf_counter()
        after = await admin.hosted()
        met = [answer for answer in streams.answers if answer.ended > began]
        return Moves(
            size,
            sum(len(after[address] - before[address]) for address in before),
            ended - began,
            is_done,
            was_skewed,
            sum(answer.failure is not None for answer in met),
            max(longest_silence([answer], began, ended) for answer in met),
            percentile(gaps_within(streams.answers, steady, began), 99),
        )


def longest_silence(answers: Sequence[Answer], began: float, ended: float) -> float:
    """The longest time, in seconds, in which none of the answers got a token or failed.

    Silences that overlap the window count whole.
    """
    moments = sorted(
        moment
        for answer in answers
        for moment in (*answer.arrivals, *([answer.ended] if answer.failure is not None else ()))
    )
    return max(
        (
            later - earlier
            for earlier, later in pairwise(moments)
            if earlier < ended and later > began
        ),
        default=0.0,
    )


@asynccontextmanager
async def _administered(cluster: ServedCluster) -> AsyncIterator[tuple[Admin, Streams]]:
    requests = requests_of(NUM_REQUESTS, NUM_PROMPT_TOKENS, NUM_NEW_TOKENS)
    streams = Streams(cluster.members["gateway"].address, requests, num_streams=NUM_STREAMS)
    admin = Admin(cluster.members["router"].address, metrics_address="")
    try:
        yield admin, streams
    finally:
        await streams.close()
        await admin.close()


async def _until_whole(admin: Admin, coverage: int, num_services: int) -> None:
    try:
        async with asyncio.timeout(WHOLE_SECONDS):
            while True:
                placement = await admin.placement()
                num_live = sum(service.is_live for service in placement.services)
                if num_live == num_services and placement.min_live_replicas >= coverage:
                    return
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise BenchFailed(
            f"experts were still lost {WHOLE_SECONDS:g} s after a service was killed"
        ) from None


async def _until_at_rest(admin: Admin) -> None:
    """Wait until the router has done what it does by itself after a service came back."""
    hosted, deadline = await admin.hosted(), time.perf_counter() + WHOLE_SECONDS
    while time.perf_counter() < deadline:
        await asyncio.sleep(REST_SECONDS)
        before, hosted = hosted, await admin.hosted()
        if hosted == before:
            return


async def _make_uneven(admin: Admin) -> bool:
    """Have one service host two thirds where both host about the half; whether that was done."""
    hosted = await admin.hosted()
    most, least = sorted(hosted, key=lambda address: -len(hosted[address]))
    num_all = len(hosted[most] | hosted[least])
    wanted = 2 * num_all // 3
    if len(hosted[most]) >= 0.55 * num_all:
        return False
    handed = sorted(hosted[least] - hosted[most])[: wanted - len(hosted[most])]
    target: dict[str, list[Key]] = {
        most: sorted(hosted[most] | set(handed)),
        least: sorted(hosted[least] - set(handed)),
    }
    async for _ in admin.change(target):
        pass
    return True


async def _spread(admin: Admin) -> bool:
    """Have the experts spread evenly; whether that was done in time."""
    call = admin.spread_evenly()
    try:
        async with asyncio.timeout(MOVE_SECONDS):
            async for _ in call:
                pass
    except TimeoutError:
        call.cancel()
        return False
    return True

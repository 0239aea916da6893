"""Asks a router over a good and a lying expert service, and compares what it generates with what it
generated before the lies.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesaic.v1 import common_pb2, router_pb2
from tests.chaos.lying_service import LyingService, lying_service
from tests.cluster import local
from tests.cluster.oracle import prompts_of
from tests.cluster.router_client import Outcome, RouterClient, connected

NUM_REQUESTS, NUM_NEW_TOKENS = 6, 24
SETTLE_SECONDS = 30.0
POLL_SECONDS = 0.02
WELL = (common_pb2.FINISH_REASON_STOP, common_pb2.FINISH_REASON_LENGTH)


@dataclass(frozen=True)
class Told:
    """What became of the requests that met one kind of lie."""

    kind: str
    failures: Sequence[str]
    num_altered: int
    longest_gap: float  # seconds in which no token came
    num_frames: int  # that the lying service was sent meanwhile
    num_lies: int
    state: str


@dataclass
class Court:
    """A router with both services, and what it generates undisturbed."""

    client: RouterClient
    liar: LyingService
    address: str
    prompts: Sequence[Sequence[int]]
    reference: Sequence[Sequence[int]] = ()

    async def hear(self, kind: str, *, least_seconds: float = 0.0) -> Told:
        """Let the service lie while requests are asked, for so long at least."""
        await self.until_trusted()
        self.liar.lie(kind)
        told = await self.told_of(kind, least_seconds=least_seconds)
        self.liar.start_again()
        return told

    async def told_of(self, kind: str, *, least_seconds: float = 0.0) -> Told:
        """Ask requests while the service lies, for so long at least, and until it has lied."""
        asked: list[Outcome] = []
        references: list[Sequence[int]] = []
        until, longest = time.monotonic() + least_seconds, 0.0
        late = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < until or (
            self.liar.sent.num_lies == 0 and time.monotonic() < late
        ):
            outcomes, gap = await self.ask()
            asked, longest = asked + outcomes, max(longest, gap)
            references += self.reference
        return Told(
            kind,
            [finish.message for each in asked if (finish := _finish(each)).reason not in WELL],
            sum(
                each.tokens != tokens[: len(each.tokens)]
                for each, tokens in zip(asked, references, strict=True)
            ),
            longest,
            self.liar.sent.num_frames,
            self.liar.sent.num_lies,
            router_pb2.ServiceState.Name((await self.placed()).state),
        )

    async def until_trusted(self) -> None:
        """Wait until the lying service is used, as it is when it was started again."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:
                if await self._is_used():
                    return
                await asyncio.sleep(POLL_SECONDS)

    async def ask(self) -> tuple[list[Outcome], float]:
        """What became of some requests, and the longest time without a token."""
        names = await self.client.submit(self.prompts, max_new_tokens=NUM_NEW_TOKENS)
        longest, last = 0.0, time.monotonic()
        while any(self.client.outcomes[name].finish is None for name in names):
            await self.client.read()
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        return [self.client.outcomes[name] for name in names], longest

    async def _is_used(self) -> bool:
        request = router_pb2.GetPlacementRequest()
        placement = await self.client.placement.GetPlacement(request)
        placed = await self.placed()
        return (
            placement.min_live_replicas == 2
            and placed.state == router_pb2.SERVICE_STATE_LIVE
            and placed.instance.endswith(self.liar.suffix)
        )

    async def placed(self) -> router_pb2.PlacedService:
        """How the router sees the lying service."""
        request = router_pb2.GetPlacementRequest()
        placement = await self.client.placement.GetPlacement(request)
        (placed,) = (one for one in placement.services if one.address == self.address)
        return placed


@asynccontextmanager
async def court(
    model: Path, vocab_size: int, *, batch_invariant: bool = True, **settings: Any
) -> AsyncIterator[Court]:
    """Both services host every expert; `settings` are the router's."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        numerics = {"batch_invariant": batch_invariant}
        first, second = await enter(local.experts(model, 2, preload="all", **numerics))
        # The other one is no faster, so that both are asked.
        _, good = await enter(lying_service(first))
        liar, address = await enter(lying_service(second))
        router = local.router(model, [good, address], coverage=2, **numerics, **settings)
        client = await enter(connected(await enter(router)))
        prompts = prompts_of([3, 5, 8, 13, 21, 34][:NUM_REQUESTS], vocab_size)
        made = Court(client, liar, address, prompts)
        outcomes = await client.generate(prompts, max_new_tokens=NUM_NEW_TOKENS)
        made.reference = [outcome.tokens for outcome in outcomes]
        yield made


def _finish(outcome: Outcome) -> router_pb2.SequenceFinish:
    assert outcome.finish is not None, "it was waited for"
    return outcome.finish

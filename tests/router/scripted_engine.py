"""An engine that runs a scripted trunk, and a listener that notes what it hears."""

import asyncio
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Sequenced
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import torch

from services.model.kv_cache import KvCache, LayerShape
from services.router.engine.engine import Engine
from services.router.engine.greenlets import await_
from services.router.engine.scheduler import Scheduler
from services.router.engine.sequence import EndReason, Order, Sequence, TraceDetail
from services.router.engine.step import Step
from services.router.engine.tracing import TracePolicy
from services.router.lanes.choice import Evidence, FixedLanes, LaneChoice, Lanes, Why
from services.router.lanes.times import StepSeen
from services.wire.sampling import Sampling

VOCAB = 16


class ScriptedTrunk:
    """Stands for a model: draws token 1, or does what `act` does; each step awaits `gate` if there
    is one.
    """

    def __init__(self, act: Callable[[Step], torch.Tensor] | None = None) -> None:
        self._act = act
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()

    def forward(self, step: Step, cache: KvCache) -> torch.Tensor:
        self.entered.set()
        if self.gate is not None:
            await_(self.gate.wait())
        if self._act is not None:
            return self._act(step)
        logits = torch.zeros(len(step.drawing), VOCAB)
        logits[:, 1] = 1.0
        return logits


class RestlessLanes:
    """Another number of lanes after every step."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = cycle(numbers)
        self.max_lanes = max(numbers)
        self.choice = LaneChoice(next(self._numbers), Why.TRIAL)

    def observe(self, seen: StepSeen) -> None:
        self.choice = LaneChoice(next(self._numbers), Why.TRIAL)

    def evidence(self) -> Evidence:
        return Evidence()


@dataclass
class Heard:
    """What a listener heard of its sequence."""

    tokens: list[int] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    sequence: Sequence | None = None

    def __call__(self, sequence: Sequence, token: int | None, step: Step | None) -> None:
        assert not self.ended.is_set(), "nothing follows the end"
        if token is not None:
            self.tokens.append(token)
        else:
            self.sequence = sequence
            self.ended.set()

    async def reason(self) -> EndReason:
        async with asyncio.timeout(10):
            await self.ended.wait()
        assert self.sequence is not None
        assert self.sequence.ending is not None
        return self.sequence.ending.reason


@asynccontextmanager
async def engine(
    trunk: Any, forgotten: list[Sequenced[int]] | None = None, lanes: Lanes | None = None
) -> AsyncIterator[Engine]:
    lanes = lanes or FixedLanes(1)
    cache = KvCache({0: LayerShape(1, 1, 1, 1)}, 256, torch.float32, torch.device("cpu"))
    scheduler = Scheduler(
        cache.pool, max_sequences=8, max_context=64, max_batch_tokens=8, max_lanes=lanes.max_lanes
    )
    forget = (forgotten if forgotten is not None else []).append
    tracing = TracePolicy.of(TraceDetail.STEP, layers_share=0.0)
    made = Engine(trunk, cache, scheduler, lanes=lanes, tracing=tracing, forget=forget)
    running = asyncio.ensure_future(made.run())
    yield made
    news = asyncio.Event()
    made.room_watchers.add(news)
    async with asyncio.timeout(10):
        while scheduler.room().kv_tokens != 256:  # blocks come back when their lane's step is over
            news.clear()
            await news.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def order(prompt: int = 3, new: int = 4, **fields: Any) -> Order:
    return Order((0,) * prompt, Sampling(temperature=0.0), new, **fields)

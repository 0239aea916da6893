"""Every order ends exactly once, whatever happens to its steps."""

import asyncio
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Sequenced
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from services.model.kv_cache import KvCache, LayerShape
from services.model.sampler import Sampling
from services.router.engine import Engine
from services.router.greenlets import await_
from services.router.scheduler import Scheduler
from services.router.sequence import Order, Reason, Sequence, TraceDetail
from services.router.step import Step
from services.wire.errors import Unavailable

VOCAB = 16


class ScriptedTrunk:
    """Stands for a model: draws token 1, or does what `act` does; each step awaits `gate` if there is one."""

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

    async def reason(self) -> Reason:
        async with asyncio.timeout(10):
            await self.ended.wait()
        assert self.sequence is not None
        assert self.sequence.ending is not None
        return self.sequence.ending.reason


@asynccontextmanager
async def engine(trunk: Any, forgotten: list[Sequenced[int]] | None = None, lanes: int = 1) -> AsyncIterator[Engine]:
    cache = KvCache({0: LayerShape(1, 1, 1, 1)}, 256, torch.float32, torch.device("cpu"))
    scheduler = Scheduler(cache.pool, max_sequences=8, max_context=64, max_batch_tokens=8, num_lanes=lanes)
    forget = (forgotten if forgotten is not None else []).append
    made = Engine(trunk, cache, scheduler, num_lanes=lanes, trace_detail=TraceDetail.STEP, forget=forget)
    running = asyncio.ensure_future(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert made.room().kv_tokens == 256


def order(prompt: int = 3, new: int = 4, **fields: Any) -> Order:
    return Order((0,) * prompt, Sampling(temperature=0.0), new, **fields)


@pytest.mark.parametrize("lanes", [1, 3])
async def test_orders_run_to_their_limits(lanes: int) -> None:
    async with engine(ScriptedTrunk(), lanes=lanes) as running:
        heard = [Heard() for _ in range(5)]
        for listener in heard:
            running.submit(order(prompt=20), listener)
        assert [await listener.reason() for listener in heard] == [Reason.LENGTH] * 5
        assert all(listener.tokens == [1] * 4 for listener in heard)


async def test_a_stop_token_is_reported_and_ends_the_order() -> None:
    async with engine(ScriptedTrunk()) as running:
        heard = Heard()
        running.submit(order(stop_token_ids=frozenset({1})), heard)
        assert await heard.reason() == Reason.STOP
        assert heard.tokens == [1]


async def test_a_failed_step_ends_its_orders_and_later_ones_are_served() -> None:
    outcomes = iter([RuntimeError("no memory")])

    def act(step: Step) -> torch.Tensor:
        for error in outcomes:
            raise error
        return torch.zeros(len(step.drawing), VOCAB)

    async with engine(ScriptedTrunk(act)) as running:
        failed, later = Heard(), Heard()
        running.submit(order(), failed)
        assert await failed.reason() == Reason.ERROR
        running.submit(order(), later)
        assert await later.reason() == Reason.LENGTH


async def test_logits_that_are_not_finite_end_their_order_alone() -> None:
    def act(step: Step) -> torch.Tensor:
        logits = torch.zeros(len(step.drawing), VOCAB)
        for row, sequence in enumerate(step.drawing):
            if len(sequence.order.prompt) == 2:
                logits[row, 5] = float("nan")
        return logits

    async with engine(ScriptedTrunk(act)) as running:
        broken, whole = Heard(), Heard()
        running.submit(order(prompt=2), broken)
        running.submit(order(prompt=3), whole)
        assert await broken.reason() == Reason.ERROR
        assert broken.sequence and "not finite" in str(broken.sequence.ending.error)  # type: ignore[union-attr]
        assert await whole.reason() == Reason.LENGTH


async def test_cancelling_in_the_middle_of_a_step_ends_the_order_and_tells_the_experts() -> None:
    trunk, forgotten, heard = ScriptedTrunk(), [], Heard()
    trunk.gate = asyncio.Event()
    async with engine(trunk, forgotten) as running:
        sequence = running.submit(order(), heard)
        await trunk.entered.wait()
        running.cancel(sequence)
        running.cancel(sequence)
        assert forgotten == [[sequence.number]]
        trunk.gate.set()
        assert await heard.reason() == Reason.CANCELLED
        assert heard.tokens == []


async def test_a_deadline_passes_while_waiting_and_while_running() -> None:
    trunk, running_one, waiting_one = ScriptedTrunk(), Heard(), Heard()
    trunk.gate = asyncio.Event()
    async with engine(trunk) as running:
        running.submit(order(), running_one, seconds=0.01)
        await trunk.entered.wait()
        running.submit(order(prompt=50, new=10), waiting_one, seconds=0.0)
        asyncio.get_running_loop().call_later(0.05, trunk.gate.set)
        assert await running_one.reason() == Reason.DEADLINE
        assert await waiting_one.reason() == Reason.DEADLINE


async def test_draining_takes_nothing_in_and_returns_when_all_have_ended() -> None:
    trunk, heard = ScriptedTrunk(), Heard()
    trunk.gate = asyncio.Event()
    async with engine(trunk) as running:
        running.submit(order(), heard)
        await trunk.entered.wait()
        draining = asyncio.ensure_future(running.drain())
        await asyncio.sleep(0)
        assert running.room().sequences == 0
        with pytest.raises(Unavailable, match="stopping"):
            running.submit(order(), Heard())
        trunk.gate.set()
        await draining
        assert heard.ended.is_set()
        running._is_draining = False  # so that the room can be read again

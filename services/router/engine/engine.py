"""Runs the steps: schedule, forward, draw, account, report; one loop for each lane that may be in
use.
"""

import asyncio
from collections.abc import Callable
from collections.abc import Sequence as Sequenced
from functools import partial
from itertools import count

import torch

from services.model.kv_cache import KvCache
from services.router.engine.drawing import draws_of, is_much
from services.router.engine.greenlets import run_awaiting
from services.router.engine.lane_control import LaneControl
from services.router.engine.metrics import StepMetrics
from services.router.engine.scheduler import Room, Scheduler
from services.router.engine.sequence import Ending, EndReason, Order, Sequence, Stopping
from services.router.engine.step import Step
from services.router.engine.step_account import StepAccount
from services.router.engine.tracing import TracePolicy
from services.router.engine.trunk import Trunk
from services.router.lanes.choice import Lanes
from services.router.times.receipt import SequenceReceipt
from services.runtime.failures import aside, failure_of, leave_aside
from services.runtime.notice import Notice
from services.wire.errors import ServingError

# Turns of the loop. In the first the streams say what is new, and health and cancellations have
# theirs; what was said is written in the second, and not after a part of the next step.
TURNS_BETWEEN_STEPS = 2
# Told of each new token of a sequence, with the step that made it; after the last one `ending` is
# set.
Listener = Callable[[Sequence, int | None, Step | None], None]


class Engine:
    """Carries out orders. Each one ends exactly once, and its listener hears of every token and of
    the end.

    Whatever one order or its listener raises ends that order alone.

    `forget` is told the numbers of sequences that ended before their time, so that experts can drop
    their frames.
    """

    def __init__(
        self,
        trunk: Trunk,
        cache: KvCache,
        scheduler: Scheduler,
        *,
        lanes: Lanes,
        tracing: TracePolicy,
        forget: Callable[[Sequenced[int]], None],
    ) -> None:
        self._trunk = trunk
        self._cache = cache
        self._scheduler = scheduler
        self._lanes = LaneControl(lanes, scheduler)
        self._tracing = tracing
        self._forget = forget
        self._numbers = count(1)
        self._listeners: dict[int, Listener] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._work = [asyncio.Event() for _ in range(lanes.max_lanes)]
        self._idle = Notice()  # a sequence has ended
        self._is_draining = False
        self.room_watchers: set[asyncio.Event] = set()  # set whenever there is more or less room
        self.room_sharers: set[asyncio.Event] = set()  # those of them that have sequences here
        self.metrics = StepMetrics(scheduler, cache)
        self._account = StepAccount(tracing, self.metrics, self._lanes)

    @property
    def num_running(self) -> int:
        """Sequences that have their room in the cache."""
        return self._scheduler.num_running

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for it."""
        return self._scheduler.num_sequences - self._scheduler.num_running

    def submit(self, order: Order, listener: Listener, seconds: float | None = None) -> Sequence:
        """Take an order in, to be finished within `seconds`.

        Raises InvalidRequest when it can never run, Overloaded when too many sequences are here,
        Stopping while draining.
        """
        if self._is_draining:
            raise Stopping("the router is stopping")
        sequence = Sequence(next(self._numbers), order, SequenceReceipt())
        self._scheduler.submit(sequence)
        with aside("tracing a sequence"):
            sequence.trace = self._tracing.begin(order)
        self._listeners[sequence.number] = listener
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timers[sequence.number] = loop.call_later(seconds, self._expire, sequence)
        self._wake()
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        """Give a sequence up; nothing happens when it has ended."""
        self._end_early(sequence, EndReason.CANCELLED)

    def room(self) -> Room:
        """What could be submitted now."""
        return Room(0, 0) if self._is_draining else self._scheduler.room()

    async def drain(self) -> None:
        """Take nothing in any more, and return once no sequence is left."""
        self._is_draining = True
        self._note_room()
        while self._listeners:
            await self._idle.wait()

    def abandon(self) -> None:
        """End every sequence that is left, since the router stops."""
        for sequence in list(self._scheduler.sequences()):
            self._end_early(
                sequence,
                EndReason.ERROR,
                Stopping("the router stopped before the sequence was done"),
            )

    async def run(self) -> None:
        """Run every lane until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            for lane in range(len(self._work)):
                lanes.create_task(self._run_lane(lane))

    async def _run_lane(self, lane: int) -> None:
        while True:
            self._work[lane].clear()
            step = self._schedule(lane)
            if step is not None:
                await self._run_step(step)
                for _ in range(TURNS_BETWEEN_STEPS):
                    await asyncio.sleep(0)
            else:
                await self._work[lane].wait()

    def _schedule(self, lane: int) -> Step | None:
        self._remove_ended(lane)
        if self._scheduler.spread(lane):
            self._begin_lanes()
        batch = self._scheduler.next_batch(lane)
        return Step(lane, batch, is_alone=self._scheduler.is_alone(lane)) if batch else None

    async def _run_step(self, step: Step) -> None:
        self._account.begin(step)
        try:
            logits = await run_awaiting(partial(self._trunk.forward, step, self._cache), step)
            tokens = await self._draw(step, logits)
            step.count_computed()
        except Exception as error:  # noqa: BLE001 -- the boundary of a step: who is at fault is found out one by one
            self._take_apart(step, error)
            tokens = {}
        self._account.end(step, len(tokens))
        self._report(step, tokens)
        self._remove_ended(step.lane)

    def _take_apart(self, step: Step, error: Exception) -> None:
        """End the sequence of a failed step; of several each is computed again, alone, as if the
        step had not been.
        """
        if len(step.batch) == 1:
            step.batch[0].sequence.end(EndReason.ERROR, failure_of(error, "a step of the router"))
            return
        leave_aside(error, "a step of several sequences (each is tried alone)")
        for work in step.batch:
            work.sequence.goes_alone = True

    async def _draw(self, step: Step, logits: torch.Tensor) -> dict[int, int]:
        """Draw for every sequence that is still wanted; returns the tokens by sequence number."""
        much = is_much(step, logits)
        draws = await asyncio.to_thread(draws_of, step, logits) if much else draws_of(step, logits)
        for sequence in draws.not_finite:
            sequence.end(
                EndReason.ERROR, ServingError("the model computed logits that are not finite")
            )
        step.likelihoods = draws.likelihoods
        if draws.prompt_scores:
            for work in step.batch:
                work.sequence.prompt_scores += draws.prompt_scores.get(work.sequence.number, ())
        return draws.tokens

    def _report(self, step: Step, tokens: dict[int, int]) -> None:
        for sequence in step.drawing:
            token = tokens.get(sequence.number)
            if token is not None and sequence.ending is None:
                sequence.take(token)
                self._tell(sequence, token, step)

    def _tell(self, sequence: Sequence, token: int, step: Step) -> None:
        try:
            self._listeners[sequence.number](sequence, token, step)
        except Exception as error:  # noqa: BLE001 -- the boundary of one sequence: what hears of it is not the step's
            sequence.ending = Ending(EndReason.ERROR, failure_of(error, "telling of a token"))

    def _remove_ended(self, lane: int) -> None:
        ended = self._scheduler.ended_sequences(lane)
        for sequence in ended:
            self._scheduler.remove(sequence)
            self._announce_end(sequence)
        if ended:
            self._wake()  # what is free now may be for a sequence of another lane

    def _end_early(
        self, sequence: Sequence, reason: EndReason, error: ServingError | None = None
    ) -> None:
        """End a sequence at once, whatever its step waits for; its blocks are freed between its
        lane's steps.
        """
        if sequence.ending is None:
            sequence.end(reason, error)
            with aside("telling experts of an end"):
                self._forget([sequence.number])
            self._announce_end(sequence)
            self._wake()

    def _announce_end(self, sequence: Sequence) -> None:
        timer = self._timers.pop(sequence.number, None)
        if timer is not None:
            timer.cancel()
        listener = self._listeners.pop(sequence.number, None)
        if listener is not None:
            with aside("telling of an end"):
                listener(sequence, None, None)
            with aside("tracing a sequence"):
                self._tracing.end(sequence)
        self._idle.send()

    def _expire(self, sequence: Sequence) -> None:
        self._end_early(sequence, EndReason.DEADLINE)

    def _wake(self) -> None:
        self._wake_lanes()
        self._note_room()

    def _begin_lanes(self) -> None:
        loop = asyncio.get_running_loop()
        for lane, work in enumerate(self._work):
            loop.call_later(self._lanes.begins_after(lane), work.set)

    def _wake_lanes(self) -> None:
        for work in self._work:
            work.set()

    def _note_room(self) -> None:
        for watcher in self.room_watchers:
            watcher.set()

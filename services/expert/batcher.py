"""Frames that wait for the same layer are computed together; the batch in flight is the timer."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from moesaic.v1 import expert_pb2
from services.expert import metrics
from services.expert.admitted_frame import AdmittedFrame
from services.expert.compute import Computed, FrameWork
from services.runtime.doorbell import Doorbell
from services.runtime.failures import aside, failure_of, leave_aside
from services.wire.outcomes import FrameError


class Compute(Protocol):
    """Computes the work of a batch; one batch at a time."""

    def __call__(self, batch: Sequence[FrameWork], /) -> Awaitable[Computed]: ...


class Batcher:
    """Runs one batch at a time; all frames of its layer that arrived meanwhile form the next,
    whoever sent them.

    There is no waiting timer: an idle batcher starts as soon as the frames that are there have been
    read. The layer that has waited longest goes first. Every frame that is submitted is answered
    once, unless it is dropped.
    """

    def __init__(self, compute: Compute, *, max_waiting_pairs: int) -> None:
        self._compute = compute
        self._max_waiting_pairs = max_waiting_pairs
        self._waiting: dict[
            int, list[AdmittedFrame]
        ] = {}  # by layer, the one that has waited longest first
        self._waiting_pairs = 0
        self._in_hand: Sequence[AdmittedFrame] = ()  # taken out of the queue to be computed
        self._arrived = Doorbell()
        self._settling: deque[tuple[set[AdmittedFrame], Callable[[], None]]] = deque()

    @property
    def waiting_pairs(self) -> int:
        """Pairs that wait for a batch."""
        return self._waiting_pairs

    def submit(self, admitted: AdmittedFrame) -> None:
        """Queue a frame, or answer it at once: when it holds no work, or as OVERLOADED when the
        queue is full.

        A single frame is let into an empty queue however large it is.
        """
        num_pairs = admitted.num_pairs
        if not num_pairs:
            admitted.finish_idle()
            return
        if self._waiting_pairs and self._waiting_pairs + num_pairs > self._max_waiting_pairs:
            admitted.fail(expert_pb2.PAIR_FAILURE_REASON_OVERLOADED)
            return
        self._waiting.setdefault(admitted.frame.layer, []).append(admitted)
        self._waiting_pairs += num_pairs
        self._arrived.ring()

    def drop(self, admitted: AdmittedFrame) -> bool:
        """Take a frame out of the queue, for the caller to answer; False when it waits no more."""
        queue = self._waiting.get(admitted.frame.layer, [])
        if admitted not in queue:
            return False  # in a batch already
        queue.remove(admitted)
        if not queue:
            del self._waiting[admitted.frame.layer]
        self._waiting_pairs -= admitted.num_pairs
        self._settle([admitted])
        return True

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call back once every frame that is queued or being computed now is done with; at once if
        there is none.
        """
        waiting = [admitted for queue in self._waiting.values() for admitted in queue]
        self._settling.append(({*waiting, *self._in_hand}, callback))
        self._call_back()

    async def run(self) -> None:
        """Compute batches until cancelled."""
        while True:
            while self._waiting:
                if batch := self._take():
                    await self._run(batch)
                # Batches computed inline await nothing: let readers bring what came meanwhile, and
                # health be answered.
                if self._waiting:
                    await asyncio.sleep(0)
            await self._arrived.wait_for_ring()

    def _take(self) -> list[AdmittedFrame]:
        queue = self._waiting.pop(next(iter(self._waiting)))
        now = time.monotonic_ns()
        batch: list[AdmittedFrame] = []
        expired: list[AdmittedFrame] = []
        for admitted in queue:
            self._waiting_pairs -= admitted.num_pairs
            (batch if admitted.deadline_nanos > now else expired).append(admitted)
        for admitted in expired:
            admitted.fail(expert_pb2.PAIR_FAILURE_REASON_EXPIRED)
        if expired:
            self._settle(expired)
        return batch

    async def _run(self, batch: list[AdmittedFrame]) -> None:
        self._in_hand = batch
        try:
            if not await self._answer(batch):
                for admitted in batch:
                    await self._answer([admitted])
        finally:
            self._in_hand = ()
            self._settle(batch)

    async def _answer(self, batch: Sequence[AdmittedFrame]) -> bool:
        """Compute a batch and answer its frames; False where several failed together, whosever
        fault that was.
        """
        started, layer = time.monotonic_ns(), batch[0].frame.layer
        try:
            computed = await self._compute([admitted.work for admitted in batch])
            ended = time.monotonic_ns()
            for admitted, rows in zip(batch, computed.rows, strict=True):
                admitted.finish(rows, started, ended, len(batch))
            metrics.record_batch(layer, len(batch), computed, ended - started)
        except Exception as error:  # noqa: BLE001 -- the boundary of a batch: who is at fault is found out one by one
            if len(batch) > 1:
                leave_aside(error, "a batch of several frames (each is tried alone)")
                return False
            failure = failure_of(error, f"computing layer {layer}")
            batch[0].refuse(FrameError(failure.status.value[0], str(failure)))
        return True

    def _settle(self, done: Iterable[AdmittedFrame]) -> None:
        if self._settling:
            for unfinished, _ in self._settling:
                unfinished.difference_update(done)
            self._call_back()

    def _call_back(self) -> None:
        while self._settling and not self._settling[0][0]:
            with aside("what waited for frames to be done with"):
                self._settling.popleft()[1]()

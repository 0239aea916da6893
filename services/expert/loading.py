"""Experts come and go: memory is reserved first, reading runs in threads, and what fails leaves
nothing behind.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from services.expert.admission import Slots
from services.expert.bank import Bank
from services.expert.holds import Hold
from services.expert.hosting import Hosting
from services.expert.readers import Readers
from services.model.checkpoint import Checkpoint
from services.model.refusals import UnusableModel
from services.wire.errors import NotFound
from services.wire.expert_key import ExpertKey

logger = logging.getLogger(__name__)

NOTHING_KNOWN: Mapping[ExpertKey, bytes] = {}


@dataclass(frozen=True)
class LoadingTimes:
    """What a library takes its time for, in seconds."""

    # How long experts that are shown as retiring serve new frames: until whoever watches the
    # hosting has turned to others.
    retire_seconds: float = 0.1
    # Between two reports of a load: each is a message to write, and for whoever asked one to read.
    report_seconds: float = 0.1


LOADING_TIMES = LoadingTimes()


@dataclass(frozen=True)
class LoadingProgress:
    """How far a load is; the hosting changed last at `generation`."""

    num_loaded: int
    num_total: int
    generation: int


OnLoading = Callable[[LoadingProgress], Awaitable[None]]


class Library:
    """Changes the hosting and the bank together. Several changes may be under way; reading takes
    turns.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        bank: Bank,
        hosting: Hosting,
        slots: Slots,
        when_settled: Callable[[Callable[[], None]], None],
        times: LoadingTimes = LOADING_TIMES,
    ) -> None:
        """`when_settled` calls back once every frame that is being served is done with."""
        self._checkpoint = checkpoint
        self._hosting = hosting
        self._slots = slots
        self._when_settled = when_settled
        self._times = times
        self._readers = Readers(bank)

    async def load(
        self,
        keys: Sequence[ExpertKey],
        expected_generation: int,
        report: OnLoading,
        hold: Hold | None = None,
        known: Mapping[ExpertKey, bytes] = NOTHING_KNOWN,
        *,
        in_background: bool = False,
    ) -> None:
        """Load experts; they become ready together, which the last report says, and are held from
        then on.

        Reports come at the start, now and then, and at the end. `known` has the content hashes that
        experts must have. With `in_background` serving goes first.

        Raises NotFound, Outdated, BadState or Overloaded before anything is read, UnusableModel
        when reading fails or what is read has another hash. After a failure, or when the caller is
        cancelled, the hosting is what it was.
        """
        self._check_exist(keys)
        self._check_known({key: self._hosting.content_hash(key) for key in known}, known)
        slots = self._hosting.begin_loading(keys, expected_generation)
        self._hold(
            keys, hold, math.inf
        )  # those that are hosted already stay while the others are read
        num_total = len(set(keys))
        num_present, reported = num_total - len(slots), -math.inf

        async def on_read(num_read: int) -> None:
            nonlocal reported
            if (now := time.monotonic()) >= reported + self._times.report_seconds:
                num_loaded, generation = num_present + num_read, self._hosting.generation
                await report(LoadingProgress(num_loaded, num_total, generation))
                reported = now

        try:
            hashes = await self._read(slots, known, on_read, in_background=in_background)
        except BaseException:
            self._hold(keys, hold, 0.0)
            self._hosting.remove(slots)
            raise
        for key, slot in slots.items():
            self._slots.put(key.layer, key.expert, slot)
        self._hosting.finish_loading(hashes)
        self._hold(keys, hold, hold.seconds if hold else 0.0)
        if slots:
            logger.info("loaded %d experts, %d more fit", len(slots), self._hosting.num_free)
        await report(LoadingProgress(num_total, num_total, self._hosting.generation))

    async def refresh(self) -> None:
        """Take up the checkpoint's files as they are now, as long as nothing is hosted of what they
        were.

        Raises UnusableModel when they cannot be used.
        """
        if not self._hosting.num_hosted:
            await asyncio.to_thread(self._checkpoint.refresh)

    def release(self, keys: Sequence[ExpertKey], operation: str) -> LoadingProgress:
        """End an operation's hold of experts, hosted or not. Raises NotFound."""
        self._check_exist(keys)
        self._hosting.hold(keys, operation, 0.0)
        return LoadingProgress(len(set(keys)), len(set(keys)), self._hosting.generation)

    async def unload(
        self, keys: Sequence[ExpertKey], expected_generation: int, operation: str = ""
    ) -> None:
        """Let experts go: new frames are served for `retire_seconds`, queued ones to the end, then
        memory is free.

        Raises NotFound or Outdated; experts that are not hosted are passed over. They go even if
        the caller does not stay to see it.
        """
        self._check_exist(keys)
        leaving = self._hosting.begin_retiring(keys, expected_generation, operation)
        if leaving:
            gone = asyncio.Event()
            asyncio.get_running_loop().call_later(
                self._times.retire_seconds, self._retire, leaving, gone
            )
            await gone.wait()

    def _retire(self, leaving: Sequence[ExpertKey], gone: asyncio.Event) -> None:
        for key in leaving:
            self._slots.take_away(key.layer, key.expert)

        def remove() -> None:
            self._readers.clear(self._hosting.remove(leaving))
            logger.info("let %d experts go, %d more fit", len(leaving), self._hosting.num_free)
            gone.set()

        self._when_settled(remove)

    def _hold(self, keys: Sequence[ExpertKey], hold: Hold | None, seconds: float) -> None:
        if hold is not None:
            self._hosting.hold(keys, hold.operation, time.monotonic() + seconds)

    def close(self) -> None:
        """End the reading threads."""
        self._readers.close()

    async def _read(
        self,
        slots: Mapping[ExpertKey, int],
        known: Mapping[ExpertKey, bytes],
        on_read: Callable[[int], Awaitable[None]],
        *,
        in_background: bool,
    ) -> dict[ExpertKey, bytes]:
        """Read experts, several at once; their hashes."""
        waiting, begun = deque(slots.items()), deque[tuple[ExpertKey, asyncio.Future[bytes]]]()
        hashes: dict[ExpertKey, bytes] = {}
        try:
            while waiting or begun:
                while waiting and len(begun) < self._readers.most_at_once:
                    key, slot = waiting.popleft()
                    reading = await self._readers.begin(key, slot, in_background=in_background)
                    begun.append((key, reading))
                await on_read(len(hashes))
                key, reading = begun.popleft()
                hashes[key] = await reading
                self._check_known({key: hashes[key]}, known)
        finally:
            for _, reading in begun:
                if not reading.cancel() and not reading.cancelled():
                    reading.exception()  # one failure is told of
        return hashes

    def _check_known(
        self, hashes: Mapping[ExpertKey, bytes], known: Mapping[ExpertKey, bytes]
    ) -> None:
        for key, content_hash in hashes.items():
            if content_hash and known.get(key, content_hash) != content_hash:
                raise UnusableModel(
                    f"{self._checkpoint.directory} has changed: expert {key.expert} of layer "
                    f"{key.layer} is not what "
                    "it was when the router started"
                )

    def _check_exist(self, keys: Sequence[ExpertKey]) -> None:
        layers, num_experts = self._checkpoint.moe_layers, self._checkpoint.num_experts
        for key in keys:
            if key.layer not in layers:
                raise NotFound(f"layer {key.layer} of {self._checkpoint.name} has no experts")
            if key.expert >= num_experts:
                raise NotFound(
                    f"expert is {key.expert}; layer {key.layer} has experts 0 to {num_experts - 1}"
                )

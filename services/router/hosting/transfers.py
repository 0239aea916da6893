"""Loads and unloads under way on the services: one at a time on each, known to every plan that is
made meanwhile.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

from services.router.hosting.contents import Contents
from services.router.hosting.troubles import Troubles
from services.router.hosting.waits import WAITS, Waits
from services.router.peers.peer import ExpertPeer
from services.runtime.failures import failure_of
from services.wire.errors import BadState, Outdated, ServingError, Unavailable
from services.wire.expert_key import ExpertKey

logger = logging.getLogger(__name__)

TransferResult = ServingError | None
TransferWork = Coroutine[Any, Any, TransferResult]


@dataclass(frozen=True)
class Transfer:
    """Experts on their way into a service, or out of it."""

    loading: Set[ExpertKey] = frozenset()
    retiring: Set[ExpertKey] = frozenset()


class Transfers:
    """What this router has under way. `on_end` is called when a service is free for the next
    change, `on_read` when one of the experts of a load was read, `on_loaded` with how many a load
    had and its seconds, unless serving went first.

    Services are told what experts have to be by `contents`; who cannot load them for a reason that
    stays has trouble.
    """

    def __init__(
        self,
        on_end: Callable[[], None],
        contents: Contents,
        troubles: Troubles,
        on_read: Callable[[Set[ExpertKey]], None] = lambda _: None,
        on_loaded: Callable[[int, float], None] = lambda *_: None,
        *,
        waits: Waits = WAITS,
    ) -> None:
        self.num_loaded: Counter[str] = Counter()  # experts since the start, by address
        self.num_unloaded: Counter[str] = Counter()
        self._on_end = on_end
        self._contents = contents
        self._troubles = troubles
        self._on_read = on_read
        self._on_loaded = on_loaded
        self._waits = waits
        self._under_way: dict[str, Transfer] = {}

    def on(self, address: str) -> Transfer | None:
        """What is under way on a service."""
        return self._under_way.get(address)

    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way

    def load(
        self,
        tasks: asyncio.TaskGroup,
        peer: ExpertPeer,
        experts: Sequence[ExpertKey],
        operation: str = "",
        *,
        in_background: bool = False,
    ) -> "asyncio.Task[TransferResult]":
        """Begin to load experts, held for `operation` where one is named; the task tells why it
        failed, if it did. With `in_background` the service's serving goes first.
        """
        work = self._outcome_of(
            peer, partial(self._load, peer, experts, operation, in_background=in_background)
        )
        return self._start(tasks, peer, Transfer(loading=frozenset(experts)), work)

    def unload(
        self,
        tasks: asyncio.TaskGroup,
        peer: ExpertPeer,
        experts: Sequence[ExpertKey],
        keepers: Sequence[tuple[ExpertPeer, Sequence[ExpertKey]]],
        operation: str,
    ) -> "asyncio.Task[TransferResult]":
        """Begin to let experts go, once the replicas that `keepers` have of them are held for the
        operation.
        """
        work = self._outcome_of(peer, partial(self._unload, peer, experts, keepers, operation))
        return self._start(tasks, peer, Transfer(retiring=frozenset(experts)), work)

    def _start(
        self, tasks: asyncio.TaskGroup, peer: ExpertPeer, transfer: Transfer, work: TransferWork
    ) -> "asyncio.Task[TransferResult]":
        assert peer.address not in self._under_way, "one change at a time on a service"
        self._under_way[peer.address] = transfer
        task = tasks.create_task(work)
        # Not in the task itself, which might be cancelled before it begins.
        task.add_done_callback(lambda _: self._end(peer.address))
        return task

    def _end(self, address: str) -> None:
        del self._under_way[address]
        self._on_end()

    async def _load(
        self,
        peer: ExpertPeer,
        experts: Sequence[ExpertKey],
        operation: str,
        *,
        in_background: bool,
    ) -> None:
        instance = peer.hosting.instance
        hold_seconds = self._waits.hold_seconds if operation else 0.0
        began = time.monotonic()
        try:
            await self._have(peer, experts, operation, hold_seconds, in_background=in_background)
        except BadState as error:
            self._troubles.add(peer.address, instance, error)
            raise
        self.num_loaded[peer.address] += len(experts)
        if not in_background:
            self._on_loaded(len(experts), time.monotonic() - began)

    async def _have(
        self,
        peer: ExpertPeer,
        experts: Sequence[ExpertKey],
        operation: str,
        hold_seconds: float,
        *,
        in_background: bool = False,
    ) -> None:
        """Have a service load experts, or hold those that it has, provided that they are what they
        have to be.
        """
        known = {key: self._contents.known(key) for key in experts}
        num_read, keys = 0, frozenset(experts)

        def progress(num_loaded: int, num_total: int) -> None:
            nonlocal num_read
            if num_loaded > num_read:
                num_read = num_loaded
                self._on_read(keys)

        await peer.load(
            experts,
            progress,
            operation=operation,
            hold_seconds=hold_seconds,
            known=known,
            in_background=in_background,
        )

    async def _unload(
        self,
        peer: ExpertPeer,
        experts: Sequence[ExpertKey],
        keepers: Sequence[tuple[ExpertPeer, Sequence[ExpertKey]]],
        operation: str,
    ) -> None:
        for keeper, kept in keepers:
            await self._have(keeper, kept, operation, self._waits.hold_seconds)
        for keeper, _ in keepers:
            if not keeper.is_usable:
                raise Unavailable(
                    f"expert service {keeper.address}, which was to serve instead, does not answer"
                )
        await peer.unload(experts, operation=operation)
        self.num_unloaded[peer.address] += len(experts)

    async def _outcome_of(
        self, peer: ExpertPeer, change: Callable[[], Awaitable[None]]
    ) -> TransferResult:
        try:
            await change()
        except Exception as raised:  # noqa: BLE001 -- the boundary of one change on one service
            error = failure_of(raised, f"changing what {peer.address} hosts")
            is_outdated = isinstance(
                error, Outdated
            )  # which happens where several routers share services
            level = logging.DEBUG if is_outdated else logging.WARNING
            logger.log(level, "changing what %s hosts failed: %s", peer.address, error)
            # The service stays taken meanwhile: no plan turns to it at once again.
            conflict, failure = self._waits.conflict_seconds, self._waits.failure_seconds
            await asyncio.sleep(random.uniform(*conflict) if is_outdated else failure)
            return error
        return None


async def release(peer: ExpertPeer, experts: Sequence[ExpertKey], operation: str) -> None:
    """End the hold that an operation has, or may have by a call that was broken off; it would lapse
    by itself.
    """
    try:
        await peer.load(experts, _no_progress, operation=operation, hold_seconds=0.0)
    except ServingError as error:
        logger.debug("%s still holds experts for %s: %s", peer.address, operation, error)


def _no_progress(num_loaded: int, num_total: int) -> None:
    """Nothing is read."""

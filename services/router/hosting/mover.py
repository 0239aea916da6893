"""Carries an operation out: loads in the new places, then unloads in the old ones, planned anew
after every change.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from services.router.hosting.operations import Operation, OperationFailed, OperationProgress, Phase
from services.router.hosting.survey import Survey
from services.router.hosting.transfers import TransferResult, Transfers, release
from services.router.hosting.waits import WAITS, Waits
from services.router.peers.peer import ExpertPeer
from services.router.planning.goals import WantedHosting
from services.router.planning.host import Host
from services.router.planning.moves import BATCH_BYTES, Changes, batch_size, next_changes
from services.router.planning.target_check import check_target
from services.router.planning.targets import Target
from services.runtime.failures import flatten_group
from services.runtime.notice import Notice
from services.wire.errors import DeadlinePassed, Outdated, Overloaded, ServingError, Unavailable
from services.wire.expert_key import ExpertKey

logger = logging.getLogger(__name__)

# Where there is no hurry: bytes of one load, and how many times as long as that took its service is
# left alone then: less where it would not come to so many bytes a second, but not less than so.
EASY_BATCH_BYTES = 64 << 20
EASY_REST, LEAST_REST = 9.0, 1.0
EASY_BYTES_PER_SECOND = 200e6


class Mover:
    """Brings operations about, within the memory of the services and with no expert ever without a
    ready replica.
    """

    def __init__(
        self,
        survey: Survey,
        transfers: Transfers,
        wanted: WantedHosting,
        peer: Callable[[str], ExpertPeer | None],
        changed: Notice,
        *,
        waits: Waits = WAITS,
    ) -> None:
        self._survey = survey
        self._transfers = transfers
        self._wanted = wanted
        self._peer = peer
        self._changed = changed
        self._waits = waits
        # Part of the holder's name: two routers may be told to carry out operations of the same
        # name.
        self._instance = uuid.uuid4().hex

    def check(self, operation: Operation) -> None:
        """Refuse what must not be begun, or cannot be done with what is there.

        Raises ServingError.
        """
        goal, wanted = operation.goal, self._wanted
        hosts = self._survey.hosts(goal.emptied)
        target = goal.target(hosts, wanted)
        check_target(target, wanted.experts, hosts, wanted.coverage, force=operation.force)
        next_changes(hosts, target)

    async def carry_out(self, operation: Operation) -> None:
        """Return when the goal is reached. Raises OperationFailed when it cannot be any more."""
        move = _Move(operation, f"{operation.name}@{self._instance}", self._waits.patience_seconds)
        try:
            async with (
                asyncio.TaskGroup() as tasks
            ):  # which cancels what is under way when the rest fails
                await self._advance(move, tasks)
        except* ServingError as group:
            raise OperationFailed(
                f"operation {operation.name} failed: {flatten_group(group)[0]}"
            ) from group
        finally:
            try:
                await self._release(move)
            except asyncio.CancelledError:  # it is to give way while it ends: its holds go first
                await self._release(move)
                raise
        for address in operation.goal.emptied:
            self._survey.keep_empty(address)
        operation.report(replace(move.progress(num_left=0), phase=Phase.DONE))

    async def _advance(self, move: "_Move", tasks: asyncio.TaskGroup) -> None:
        planned_for: Mapping[str, bool] = {}
        target: Target = {}
        while True:
            move.take_in_ended()
            hosts = self._survey.hosts(move.operation.goal.emptied)
            suspect_seconds = self._survey.seconds_until_given_up()
            if suspect_seconds is not None:  # it is soon known whether they come back
                await self._changed.wait(suspect_seconds)
                continue
            present = {host.address: host.is_draining for host in hosts}
            move.is_pressed = any(host.is_draining and host.hosted for host in hosts)
            if present != planned_for:  # somebody came, went, or is about to go
                target, planned_for = move.operation.goal.target(hosts, self._wanted), present
            expert_bytes = self._survey.expert_bytes
            most_bytes = BATCH_BYTES if move.is_urgent else EASY_BATCH_BYTES
            most = batch_size(expert_bytes, most_bytes)
            changes = next_changes(hosts, target, max_batch=most)
            move.report(changes, expert_bytes)
            if changes.num_left == 0:
                return
            self._begin(changes, hosts, target, move, tasks)
            rest = move.seconds_of_rest()
            stall = self._waits.stall_seconds
            if not await self._changed.wait(rest or stall) and rest is None:
                raise OperationFailed(f"nothing has changed for {stall:g} s")

    def _begin(
        self,
        changes: Changes,
        hosts: Sequence[Host],
        target: Target,
        move: "_Move",
        tasks: asyncio.TaskGroup,
    ) -> None:
        for address, experts in changes.loads.items():
            peer = self._idle_peer(address)
            if peer is not None and not move.rests(address):
                move.hold(address, experts)
                load = self._transfers.load(
                    tasks, peer, experts, move.holder, in_background=not move.is_urgent
                )
                move.loading(address, load, len(experts) * self._survey.expert_bytes)
        for address, experts in changes.unloads.items():
            peer = self._idle_peer(address)
            if peer is not None:
                keepers = self._keepers(experts, changes, hosts, target)
                for keeper, kept in keepers:
                    move.hold(keeper.address, kept)
                leaving = sorted(key for _, kept in keepers for key in kept)
                if leaving:
                    move.tasks.append(
                        self._transfers.unload(tasks, peer, leaving, keepers, move.holder)
                    )

    def _idle_peer(self, address: str) -> ExpertPeer | None:
        return None if self._transfers.on(address) is not None else self._peer(address)

    def _keepers(
        self, experts: Sequence[ExpertKey], changes: Changes, hosts: Sequence[Host], target: Target
    ) -> list[tuple[ExpertPeer, list[ExpertKey]]]:
        """For experts that leave a service, another each whose replica serves on; those without one
        are left out.
        """
        staying = {
            host.address: host.hosted - set(changes.unloads.get(host.address, ())) for host in hosts
        }

        def keeper_of(key: ExpertKey) -> str:
            others = [address for address, kept in staying.items() if key in kept]
            return min(
                others,
                key=lambda address: (key not in target.get(address, ()), address),
                default="",
            )

        chosen = sorted((keeper_of(key), key) for key in experts)
        by_keeper = {
            address: [key for _, key in kept]
            for address, kept in groupby(chosen, lambda entry: entry[0])
        }
        peers = {address: self._peer(address) for address in by_keeper}
        return [(peer, by_keeper[address]) for address, peer in peers.items() if peer is not None]

    async def _release(self, move: "_Move") -> None:
        """End the holds, so that the next operation, another router's perhaps, need not wait for
        them to lapse.
        """
        try:
            async with asyncio.timeout(self._waits.release_seconds), asyncio.TaskGroup() as tasks:
                for address, held in move.held.items():
                    peer = self._peer(address)
                    if peer is not None:
                        tasks.create_task(release(peer, sorted(held), move.holder))
        except TimeoutError:
            logger.debug("holds of operation %s are left to lapse", move.operation.name)


class _Move:
    """What has become of an operation's transfers so far."""

    def __init__(self, operation: Operation, holder: str, patience_seconds: float) -> None:
        self.operation = operation
        self.holder = holder  # whom the services know as who holds replicas
        self.tasks: list[asyncio.Task[TransferResult]] = []
        self.held: dict[str, set[ExpertKey]] = {}
        self.is_pressed = False  # a service waits for its experts to be elsewhere, so as to stop
        self._num_done = self._num_loaded = self._expert_bytes = 0
        self._patience_seconds = patience_seconds
        self._before: Changes | None = None
        self._trouble_since: float | None = None  # seconds of the monotonic clock
        self._rests_until: dict[str, float] = {}  # seconds of the monotonic clock, by address

    @property
    def is_urgent(self) -> bool:
        """Whether somebody waits for the end."""
        operation = self.operation
        return self.is_pressed or operation.goal.is_urgent or operation.is_waited_for

    def loading(self, address: str, task: "asyncio.Task[TransferResult]", num_bytes: int) -> None:
        """A load was begun; its service rests when it has ended, unless there is a hurry."""
        self.tasks.append(task)
        began = time.monotonic()

        def rest(_: "asyncio.Task[TransferResult]") -> None:
            now = time.monotonic()
            if not self.is_urgent:
                self._rests_until[address] = now + rest_seconds(now - began, num_bytes)

        task.add_done_callback(rest)

    def rests(self, address: str) -> bool:
        """Whether nothing is to be loaded there for now."""
        return self._rests_until.get(address, 0.0) > time.monotonic()

    def seconds_of_rest(self) -> float | None:
        """Until the first service that rests can go on; None where none does."""
        now = time.monotonic()
        return min(
            (until - now for until in self._rests_until.values() if until > now), default=None
        )

    def hold(self, address: str, experts: Sequence[ExpertKey]) -> None:
        self.held.setdefault(address, set()).update(experts)

    def take_in_ended(self) -> None:
        """Raises ServingError for a failure that trying again does not mend, or has not mended for
        long.
        """
        ended = [task for task in self.tasks if task.done()]
        self.tasks = [task for task in self.tasks if not task.done()]
        for error in [task.result() for task in ended]:
            if error is None:
                self._trouble_since = None
                continue
            now = time.monotonic()
            self._trouble_since = self._trouble_since or now
            is_outdated = isinstance(error, Outdated) and not self.operation.goal.ends_when_outdated
            may_pass = is_outdated or isinstance(error, Overloaded | Unavailable | DeadlinePassed)
            if not may_pass or now - self._trouble_since > self._patience_seconds:
                raise error

    def report(self, changes: Changes, expert_bytes: int) -> None:
        """Tell how far it is."""
        if self._before is not None:
            self._num_done += max(0, self._before.num_left - changes.num_left)
            self._num_loaded += max(0, self._before.num_to_load - changes.num_to_load)
        self._before, self._expert_bytes = changes, expert_bytes
        phase = Phase.RETIRING if changes.unloads and not changes.loads else Phase.LOADING
        progress = self.progress(changes.num_left, changes.num_to_load)
        self.operation.report(replace(progress, phase=phase))

    def progress(self, num_left: int, num_to_load: int = 0) -> OperationProgress:
        """How far it is when so much is left."""
        loaded, left = self._num_loaded * self._expert_bytes, num_to_load * self._expert_bytes
        return OperationProgress(
            Phase.LOADING, self._num_done, self._num_done + num_left, loaded, loaded + left
        )


def rest_seconds(seconds_taken: float, num_bytes: int) -> float:
    """How long a service is left alone after a load that nobody waited for."""
    at_that_rate = num_bytes / EASY_BYTES_PER_SECOND - seconds_taken
    return min(EASY_REST * seconds_taken, max(LEAST_REST * seconds_taken, at_that_rate))

"""Operations that change who hosts what: one after the other, known by id, owned by the router and
not by who asked.
"""

import asyncio
import logging
import uuid
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

import grpc

from services.router.planning.goals import Goal
from services.runtime.failures import failure_of
from services.runtime.notice import Notice
from services.wire.errors import BadState, InvalidRequest, Overloaded, ServingError
from services.wire.quoting import quoted

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 16
MAX_WAITING = 8
MAX_NAME_CHARACTERS = 64


class OperationFailed(ServingError):
    """An operation ended on its way; what was in force stays in force."""

    status = grpc.StatusCode.ABORTED


class Phase(Enum):
    """What an operation is doing."""

    WAITING = "waiting"
    LOADING = "loading"
    RETIRING = "retiring"
    DONE = "done"


@dataclass(frozen=True)
class OperationProgress:
    """How far an operation is: experts loaded or unloaded so far, and in all, and bytes of those
    loaded.
    """

    phase: Phase
    num_done: int
    num_total: int
    loaded_bytes: int = 0
    total_bytes: int = 0


class Operation:
    """One change, from when it was accepted; `is_own` where nobody asked for it but the router
    itself.
    """

    def __init__(self, name: str, goal: Goal, *, force: bool = False, is_own: bool = False) -> None:
        self.name = name
        self.goal = goal
        self.force = force
        self.is_own = is_own
        self.is_waited_for = False  # by another one, which is carried out afterwards
        self.progress = OperationProgress(Phase.LOADING, 0, 0)
        self.failure: ServingError | None = None
        self._changed = Notice()

    @property
    def has_ended(self) -> bool:
        """Whether it is done or has failed."""
        return self.failure is not None or self.progress.phase is Phase.DONE

    def report(self, progress: OperationProgress) -> None:
        """Take in how far it is, and tell whoever follows."""
        self.progress = progress
        self._changed.send()

    def fail(self, failure: ServingError) -> None:
        """Take in why it ended early."""
        self.failure = failure
        self._changed.send()

    async def follow(self) -> AsyncGenerator[OperationProgress, None]:
        """How far it is, now and after each change, the last time when it is done. Raises
        ServingError when it failed.

        Who is slow misses what lies between.
        """
        latest: OperationProgress | None = None
        while True:
            if self.failure is not None:
                raise self.failure
            if self.progress != latest:
                latest = self.progress
                yield latest
                if latest.phase is Phase.DONE:
                    return
            else:
                await self._changed.wait()


class Operations:
    """Carries out one operation at a time, in the order in which they were asked for; `carry_out`
    does the work and `check` refuses what must not be begun.

    `on_end` is called when one has ended, well or not.
    """

    def __init__(
        self,
        carry_out: Callable[[Operation], Awaitable[None]],
        check: Callable[[Operation], None],
        on_end: Callable[[], None],
    ) -> None:
        self.num_ended: Counter[str] = Counter()  # by how: done, failed
        self._carry_out = carry_out
        self._check = check
        self._on_end = on_end
        self._known: OrderedDict[str, Operation] = OrderedDict()
        self._unended: list[Operation] = []  # the one under way, then those that wait
        self._latest: tuple[Operation, asyncio.Task[None]] | None = None
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Own the operations until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.Event().wait()

    @property
    def current(self) -> Operation | None:
        """What is under way."""
        return next(iter(self.unended), None)

    @property
    def unended(self) -> list[Operation]:
        """What is under way, then what waits."""
        return [one for one in self._unended if not one.has_ended]

    def known(self, name: str) -> Operation | None:
        """The operation of that name, if it was asked for not too long ago."""
        return self._known.get(name)

    def begin(
        self, name: str, goal: Goal, *, force: bool = False, is_own: bool = False
    ) -> Operation:
        """Begin an operation, or give the one of that name that waits, is under way or done; one
        that failed begins anew. While another is under way it waits for its turn.

        An operation of the router's own gives way to one that was asked for. Raises BadState where
        it would have to wait itself, Overloaded where too many wait, InvalidRequest for a name that
        is too long or another operation's, and whatever `check` raises.
        """
        if len(name) > MAX_NAME_CHARACTERS:
            raise InvalidRequest(
                f"operation_id has {len(name)} characters; the limit is {MAX_NAME_CHARACTERS}"
            )
        name = name or uuid.uuid4().hex
        known = self._known.get(name)
        if known is not None and (known.goal, known.force) != (goal, force):
            raise InvalidRequest(f"operation_id {quoted(name)} is that of another operation")
        if known is not None and known.failure is None:
            return known
        waiting = self.unended
        if waiting and is_own:
            raise BadState(
                f"operation {waiting[0].name} is under way; one is carried out at a time"
            )
        if len(waiting) > MAX_WAITING:
            raise Overloaded(
                f"{MAX_WAITING} operations wait for operation {waiting[0].name} already"
            )
        operation = Operation(name, goal, force=force, is_own=is_own)
        self._check(operation)
        if not is_own:
            self._remember(operation)
        self._append(operation)
        return operation

    def _append(self, operation: Operation) -> None:
        assert self._tasks is not None, "operations are owned while `run` runs"
        latest, before = self._latest or (None, None)
        if latest is not None and before is not None and not latest.has_ended:
            if latest.is_own:
                before.cancel()
                latest.fail(_gave_way(latest))
            else:
                operation.report(OperationProgress(Phase.WAITING, 0, 0))
        for one in self._unended:
            one.is_waited_for |= operation.goal.is_urgent
        self._unended = [*self.unended, operation]
        self._latest = operation, self._tasks.create_task(self._life(operation, before))

    async def _life(self, operation: Operation, before: "asyncio.Task[None] | None") -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            if operation.progress.phase is Phase.WAITING:
                self._check(operation)  # what is hosted is not what it was
                operation.report(OperationProgress(Phase.LOADING, 0, 0))
            logger.info("operation %s: %s", operation.name, operation.goal)
            await self._carry_out(operation)
            logger.info("operation %s is done", operation.name)
        except Exception as error:  # noqa: BLE001 -- the boundary of one operation
            operation.fail(failure_of(error, f"operation {operation.name}"))
            logger.warning("%s", operation.failure)
        except asyncio.CancelledError:
            operation.fail(_gave_way(operation))
            raise
        finally:
            self.num_ended["done" if operation.failure is None else "failed"] += 1
            self._on_end()

    def _remember(self, operation: Operation) -> None:
        self._known[operation.name] = operation
        self._known.move_to_end(operation.name)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)


def _gave_way(operation: Operation) -> OperationFailed:
    return OperationFailed(
        f"operation {operation.name} gave way to another, or to the router's end"
    )

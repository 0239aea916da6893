"""Operations that change who hosts what: one at a time, known by id, owned by the router and not by
who asked.
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
from services.wire.errors import BadState, InvalidRequest, ServingError
from services.wire.quoting import quoted

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 16
MAX_NAME_CHARACTERS = 128


class OperationFailed(ServingError):
    """An operation ended on its way; what was in force stays in force."""

    status = grpc.StatusCode.ABORTED


class Phase(Enum):
    """What an operation is doing."""

    LOADING = "loading"
    RETIRING = "retiring"
    DONE = "done"


@dataclass(frozen=True)
class OperationProgress:
    """How far an operation is: experts loaded or unloaded so far, and in all."""

    phase: Phase
    num_done: int
    num_total: int


class Operation:
    """One change, from when it was accepted; `is_own` where nobody asked for it but the router
    itself.
    """

    def __init__(self, name: str, goal: Goal, *, force: bool = False, is_own: bool = False) -> None:
        self.name = name
        self.goal = goal
        self.force = force
        self.is_own = is_own
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
    """Carries out one operation at a time; `carry_out` does the work and `check` refuses what must
    not be begun.

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
        self._current: tuple[Operation, asyncio.Task[None]] | None = None
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Own the operations until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.Event().wait()

    @property
    def current(self) -> Operation | None:
        """What is under way."""
        return None if self._current is None or self._current[0].has_ended else self._current[0]

    def known(self, name: str) -> Operation | None:
        """The operation of that name, if it was asked for not too long ago."""
        return self._known.get(name)

    def begin(
        self, name: str, goal: Goal, *, force: bool = False, is_own: bool = False
    ) -> Operation:
        """Begin an operation, or give the one of that name that is under way or done; one that
        failed begins anew.

        An operation of the router's own gives way to one that was asked for. Raises BadState while
        another is under way, InvalidRequest for a name that is too long or another operation's, and
        whatever `check` raises.
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
        current = self.current
        if current is not None and (is_own or not current.is_own):
            raise BadState(f"operation {current.name} is under way; one is carried out at a time")
        operation = Operation(name, goal, force=force, is_own=is_own)
        self._check(operation)
        if not is_own:
            self._remember(operation)
        assert self._tasks is not None, "operations are owned while `run` runs"
        before = self._current[1] if self._current is not None else None
        if before is not None:
            before.cancel()
        self._current = operation, self._tasks.create_task(self._life(operation, before))
        return operation

    async def _life(self, operation: Operation, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait([before])
        logger.info("operation %s: %s", operation.name, operation.goal)
        try:
            await self._carry_out(operation)
            logger.info("operation %s is done", operation.name)
        except Exception as error:  # noqa: BLE001 -- the boundary of one operation
            operation.fail(failure_of(error, f"operation {operation.name}"))
            logger.warning("%s", operation.failure)
        except asyncio.CancelledError:
            operation.fail(
                OperationFailed(
                    f"operation {operation.name} gave way to another, or to the router's end"
                )
            )
            raise
        finally:
            self.num_ended["done" if operation.failure is None else "failed"] += 1
            self._on_end()

    def _remember(self, operation: Operation) -> None:
        self._known[operation.name] = operation
        self._known.move_to_end(operation.name)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

"""Plans in a process of its own, so that planning takes nothing from serving but what is
left over.
"""

import asyncio
import logging
import os
import pickle
import struct
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from services.wire.errors import DeadlinePassed, Overloaded, ServingError, Unavailable

logger = logging.getLogger(__name__)

WORKER = "services.router.balance.worker"
# A plan of the largest models takes a second or two; with a low priority on a busy machine ten
# times that.
PLAN_SECONDS = 60.0
MAX_WAITING = 8

Arguments = ParamSpec("Arguments")
Outcome = TypeVar("Outcome")


class Planner:
    """Calls functions in a spawned process: one at a time, each with a deadline.

    The process is started when it is first needed, and anew after it died or was ended for taking
    too long; it ends with `close`, or by itself when this process is gone. A call has
    `plan_seconds` from when it is its turn.
    """

    def __init__(self, plan_seconds: float = PLAN_SECONDS) -> None:
        self.plan_seconds = plan_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._num_waiting = 0
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """The process, where there is one."""
        return None if self._process is None else self._process.pid

    async def run(
        self,
        function: Callable[Arguments, Outcome],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Outcome:
        """What `function`, of a module without torch, returns there; raises the ServingError that
        it raises.

        Raises DeadlinePassed when it takes too long, Unavailable when the process dies or the
        planner is closed, and Overloaded when too many are waiting.
        """
        if self._num_waiting >= MAX_WAITING:
            raise Overloaded(f"{self._num_waiting} plans are being waited for")
        self._num_waiting += 1
        try:
            async with self._turn:
                return await self._run(pickle.dumps((function, arguments, named)))  # type: ignore[return-value]
        finally:
            self._num_waiting -= 1

    async def close(self) -> None:
        """End the process; nothing is planned any more."""
        self._is_closed = True
        await self._end()

    async def _run(self, message: bytes) -> object:
        is_answered = False
        try:
            async with asyncio.timeout(self.plan_seconds):
                result = await self._exchange(message)
            is_answered = True
        except TimeoutError:
            raise DeadlinePassed(f"planning took more than {self.plan_seconds:g} s") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Unavailable(
                "the planning process died; it is started anew with the next plan"
            ) from None
        except OSError as error:
            raise Unavailable(f"the planning process cannot be started: {error}") from error
        finally:
            if not is_answered:  # its answer, if any, would be taken for the next one's
                await self._end()
        if isinstance(result, ServingError):
            raise result
        return result

    async def _exchange(self, message: bytes) -> object:
        process = await self._started()
        assert process.stdin is not None, "it is a pipe"
        assert process.stdout is not None, "and so is this"
        process.stdin.write(struct.pack("<Q", len(message)) + message)
        await process.stdin.drain()
        (length,) = struct.unpack("<Q", await process.stdout.readexactly(8))
        return pickle.loads(await process.stdout.readexactly(length))

    async def _started(self) -> asyncio.subprocess.Process:
        if self._is_closed:
            raise Unavailable("the router stops: nothing is planned any more")
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                # -P: a folder called `services` where the user happens to be is none of ours.
                *(sys.executable, "-P", "-m", WORKER),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C reaches the router alone, which ends this one
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                    "MKL_NUM_THREADS": "1",
                },
            )
            logger.debug("planning in process %d", self._process.pid)
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

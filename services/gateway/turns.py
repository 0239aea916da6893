"""Turns at what only a few can use at once: a client that had its turn stands behind the others."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.runtime.yielding import yield_to_others

Made = TypeVar("Made")
Turn = asyncio.Future[None]


class FairTurns:
    """Of `places` that are used at once. How many wait is bounded by who asks."""

    def __init__(self, places: int) -> None:
        self._num_free = places
        # In the order in which they are served; the values of a client's are nothing.
        self._waiting: OrderedDict[str, OrderedDict[Turn, None]] = OrderedDict()

    async def begin(self, client: str) -> Callable[[], None]:
        """Wait for a place; what is returned gives it back, and is to be called once."""
        if self._num_free:
            self._num_free -= 1
            return self._end
        turn: Turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, OrderedDict())[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(client, turn)
            else:  # it was given the place meanwhile
                self._end()
            raise
        return self._end

    def _end(self) -> None:
        while self._waiting:
            client, turns = next(iter(self._waiting.items()))
            turn, _ = turns.popitem(last=False)
            if not turns:
                del self._waiting[client]
            if not turn.done():  # nobody has left it
                if turns:
                    self._waiting.move_to_end(client)
                turn.set_result(None)
                return
        self._num_free += 1

    def _forget(self, client: str, turn: Turn) -> None:
        turns = self._waiting.get(client, OrderedDict())
        turns.pop(turn, None)  # or it was passed over already
        if not turns:
            self._waiting.pop(client, None)


class FairThreads:
    """Threads that clients take turns at, and that leave the processor to the event loop. How many
    wait for one is bounded by who asks.
    """

    def __init__(self, threads: int, *, name: str) -> None:
        self._threads = ThreadPoolExecutor(
            threads, thread_name_prefix=name, initializer=yield_to_others
        )
        self._turns = FairTurns(threads)

    async def do(self, client: str, work: Callable[[], Made]) -> Made:
        """What the work makes, in one of the threads."""
        end_turn = await self._turns.begin(client)
        working = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # The thread is taken until it is done, also where nobody waits for that any more.
        working.add_done_callback(lambda done: (done.cancelled() or done.exception(), end_turn()))
        return await asyncio.shield(working)

    def close(self) -> None:
        """End the threads; what waits for one is given up."""
        self._threads.shutdown(wait=False, cancel_futures=True)

"""Turns at what only a few can use at once: a client that had its turn stands behind the others."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

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

"""What one connection holds of requests, and which calls end where that is too much."""

from collections.abc import Callable, Mapping, Sized

import grpc

from services.runtime.native_server.call import TOO_MUCH_HELD, Call
from services.wire.connections import Connection


class HeldRequests:
    """Bytes of requests that came in part, or that no handler has taken; `tell` hears of changes
    of them. What is `unheard` may begin calls, of which some is held already.
    """

    def __init__(
        self,
        wire: Connection,
        calls: Mapping[int, Call],
        unheard: Sized,
        tell: Callable[[int], bool],
    ) -> None:
        self._wire = wire
        self._calls = calls
        self._unheard = unheard
        self._tell = tell
        self._num_told = 0

    @property
    def num_bytes(self) -> int:
        """Of all calls."""
        return self._wire.all_held_bytes()

    def change(self) -> int:
        """By how many bytes that has changed since this was asked last."""
        before, self._num_told = self._num_told, self.num_bytes
        return self._num_told - before

    def tell_change(self) -> bool:
        """Tell of a change; also of none, where there is something to be judged. Whether more may
        be read.
        """
        change = self.change()
        return self._tell(change) if change or self.num_bytes else True

    @property
    def is_behind(self) -> bool:
        """Whether calls have not begun of which some is held: they cannot be ended yet."""
        return bool(self._unheard)

    def shed(self) -> bool:
        """End the calls of which most is held, until half of it is let go. False where even all of
        them do not bring that.
        """
        enough = self.num_bytes // 2
        calls = sorted(self._calls, key=self._num_bytes_of)
        while calls and self.num_bytes > enough:
            self._calls[calls.pop()].end(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MUCH_HELD)
        return self.num_bytes <= enough

    def _num_bytes_of(self, stream: int) -> int:
        return self._wire.held_bytes(stream) + self._calls[stream].num_waiting_bytes

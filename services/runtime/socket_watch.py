"""Has the event loop call when a socket has something to read, and when it takes more."""

import asyncio
from collections.abc import Callable


class SocketWatch:
    """Watches until it is closed, which has to be before the socket is: `read` is called whenever
    there is something, `write` only while that is asked for.
    """

    def __init__(
        self, descriptor: int, read: Callable[[], None], write: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._read, self._write = read, write
        self.is_writing = False  # whether `write` is waited for
        self._loop.add_reader(descriptor, read)

    def watch_reading(self, is_wanted: bool) -> None:
        """Whether `read` is to be called when there is something, as it is at first."""
        if is_wanted:
            self._loop.add_reader(self._descriptor, self._read)
        else:
            self._loop.remove_reader(self._descriptor)

    def watch_writing(self, is_wanted: bool) -> None:
        """Whether `write` is to be called when the socket takes more."""
        if is_wanted and not self.is_writing:
            self._loop.add_writer(self._descriptor, self._write)
        elif self.is_writing and not is_wanted:
            self._loop.remove_writer(self._descriptor)
        self.is_writing = is_wanted

    def close(self) -> None:
        """Watch no more."""
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        # Whoever made this is not held by it: the two would be garbage that has to be looked for.
        self._read = self._write = _nothing


def _nothing() -> None:
    pass

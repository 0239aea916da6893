"""What a watch of a socket leaves behind."""

import gc
import socket
import weakref

from services.runtime.socket_watch import SocketWatch


class Watching:
    """Has a watch that calls it."""

    def __init__(self, connected: socket.socket) -> None:
        self.watch = SocketWatch(connected.fileno(), self._heard, self._heard)

    def _heard(self) -> None:
        pass


async def test_who_closes_its_watch_is_no_garbage_to_be_looked_for() -> None:
    one, other = socket.socketpair()
    gc.disable()
    try:
        watching = Watching(one)
        watching.watch.close()
        gone = weakref.ref(watching)
        del watching
        assert gone() is None
    finally:
        gc.enable()
        one.close()
        other.close()

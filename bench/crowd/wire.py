"""Calls as cheap as they can be made: prepared bytes on connections in C, without an event loop,
and dated by the kernel as they arrive.
"""

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from services.runtime.host_port import split_host_port
from services.wire.connections import Connection, Kind
from services.wire.header_blocks import HeaderDecoder

GENERATE = "/moesaic.v1.GenerationService/Generate"
CANCEL = 8  # of HTTP/2's codes
MAX_MESSAGE_BYTES, MAX_UNSENT_BYTES = 64 << 20, 1 << 30
TICK_SECONDS = 0.001
# Of a call that the service reset, or whose connection it closed.
RESET = -1


@dataclass
class WireCall:
    """A call, by the nanoseconds of the monotonic clock at which things happened."""

    sent_nanos: int = 0
    message_nanos: list[int] = field(default_factory=list)
    ended_nanos: int = 0
    status: int | None = None

    @property
    def token_nanos(self) -> list[int]:
        """Of the messages that brought tokens, where the call ended well: the last one is the
        end.
        """
        return self.message_nanos[:-1] if self.status == 0 else self.message_nanos


class WireClient:
    """Connections from one host, each with its calls; `host` is an address of this machine."""

    def __init__(self, address: str, host: str) -> None:
        target = split_host_port(address, lowest_port=1)
        connected = socket.create_connection(target, source_address=(host, 0))
        connected.setblocking(False)
        self._wire = Connection(
            connected.detach(), False, MAX_MESSAGE_BYTES, 1, MAX_UNSENT_BYTES, MAX_MESSAGE_BYTES
        )
        self._decoder = HeaderDecoder()
        self._open: dict[int, WireCall] = {}
        self._unsent: list[WireCall] = []

    def begin(
        self, block: bytes, message: bytes | None, *, is_finished: bool = True
    ) -> WireCall | None:
        """Begin a call by its header block, with its request where there is one; None where no more
        are taken.
        """
        stream = self._wire.open(block)
        if not stream:
            return None
        if message is not None:
            self._wire.send(stream, message)
        if is_finished and message is not None:
            self._wire.finish(stream)
        call = self._open[stream] = WireCall()
        self._unsent.append(call)
        return call

    def cancel_all(self) -> None:
        """Give up all calls that are open."""
        for stream in list(self._open):
            self._wire.reset(stream, CANCEL)
        self._open.clear()

    @property
    def num_open(self) -> int:
        return len(self._open)

    @property
    def is_over(self) -> bool:
        return self._wire.is_over or self._wire.fileno() < 0

    def fileno(self) -> int:
        return self._wire.fileno()

    def work(self) -> bool:
        """Write and read what can be; whether there is more to write than the socket takes."""
        now = time.monotonic_ns()
        self._wire.flush()
        for call in self._unsent:
            call.sent_nanos = now
        self._unsent.clear()
        for stream, kind, data, number in self._wire.receive():
            self._take(stream, kind, data, number)
        self._wire.flush()
        return self._wire.wants_write

    def close(self) -> None:
        """Close the connection, without a word."""
        self._wire.close()

    def _take(self, stream: int, kind: int, data: bytes, number: int) -> None:
        headers = self._decoder.decode(data) if kind in (Kind.HEADERS, Kind.TRAILERS) else {}
        call = self._open.get(stream)
        if call is None:
            return
        if kind == Kind.MESSAGE:
            call.message_nanos.append(number)
        if "grpc-status" in headers:
            self._end(stream, call, int(headers["grpc-status"]), number)
        elif kind == Kind.RESET:
            self._end(stream, call, RESET, time.monotonic_ns())

    def _end(self, stream: int, call: WireCall, status: int, nanos: int) -> None:
        call.status, call.ended_nanos = status, nanos
        del self._open[stream]


def work_until(clients: list[WireClient], is_over: Callable[[], bool], until_nanos: int) -> None:
    """Serve the clients' connections until that is so, or the time has come; it is asked every
    TICK_SECONDS at least.
    """
    poll = select.poll()
    by_file = {client.fileno(): client for client in clients}
    for file in by_file:
        poll.register(file, select.POLLIN)
    for client in clients:
        _work(poll, client)
    while not is_over() and time.monotonic_ns() < until_nanos and by_file:
        for file, _ in poll.poll(TICK_SECONDS * 1000):
            if not _work(poll, by_file[file]):
                poll.unregister(file)
                del by_file[file]


def _work(poll: select.poll, client: WireClient) -> bool:
    file = client.fileno()
    wants_write = client.work()
    if client.is_over or file < 0:
        return False
    poll.modify(file, select.POLLIN | (select.POLLOUT if wants_write else 0))
    return True

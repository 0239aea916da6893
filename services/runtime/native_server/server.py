"""The server: its sockets, its connections, and the tasks of its calls."""

import asyncio
import errno
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

import grpc

from services.runtime.access import Access
from services.runtime.doorkeeping import Doorkeeper, host_of, peer_of
from services.runtime.failures import failure_of
from services.runtime.native_server.all_held import AllHeld
from services.runtime.native_server.connection import ServerConnection
from services.runtime.native_server.limits import Limits
from services.runtime.native_server.listening import listen_on
from services.runtime.native_server.methods import Methods
from services.runtime.native_server.turn import Turn
from services.runtime.tls_contexts import ServerTls
from services.wire import connections

AVAILABLE = connections.AVAILABLE

logger = logging.getLogger(__name__)

# Taken from a socket at a time, so that those who are connected get their turn.
MAX_ACCEPTS = 16
# Until the next try, where the process has no descriptor left.
PAUSE_SECONDS = 1.0
# How often in the time that a client has it is looked whether that is over.
LOOKS = 4
_NONE_LEFT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
# Of a connection on which nothing moves: a client that vanished without a word.
_KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 60),
    (socket.TCP_KEEPINTVL, 15),
    (socket.TCP_KEEPCNT, 4),
)


class NativeServer(grpc.aio.Server):
    """As grpc.aio's server, without interceptors: every handler is behind `ErrorsToStatus`' own
    boundary.
    """

    def __init__(
        self,
        limits: Limits,
        access: Access | None = None,
        doorkeeper: Doorkeeper | None = None,
        max_request_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._limits = limits
        self._doorkeeper = doorkeeper
        self._max_request_bytes = max_request_bytes
        self._methods = Methods(access)
        self._turn = Turn(limits.turn_seconds, limits.max_turn_bytes, limits.max_turn_calls)
        self._listeners: dict[socket.socket, ServerTls | None] = {}
        self._connections: set[ServerConnection] = set()
        self._by_host: Counter[str] = Counter()
        self._resting: dict[ServerConnection, float] = {}  # by when they came to rest, in order
        self._looking: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._all_held = AllHeld(limits.max_all_held_bytes, self._connections)
        self._changed = asyncio.Event()  # a connection has settled, or is gone
        self._stopped = asyncio.Event()

    def add_generic_rpc_handlers(
        self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]
    ) -> None:
        self._methods.add_generic(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler]
    ) -> None:
        self._methods.add_service(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Raises RuntimeError, as grpc.aio's does, where it cannot be listened on."""
        return self._add_port(address, None)

    def add_secure_port(
        self, address: str, server_credentials: "grpc.ServerCredentials | ServerTls"
    ) -> int:
        """As `add_insecure_port`. It takes credentials of our own alone."""
        if not isinstance(server_credentials, ServerTls):
            raise NotImplementedError("what gRPC's credentials hold is not to be had")
        return self._add_port(address, server_credentials)

    def _add_port(self, address: str, tls: ServerTls | None) -> int:
        try:
            listeners = listen_on(address)
        except (OSError, ValueError) as error:
            raise RuntimeError(f"cannot listen on {address}: {error}") from error
        self._listeners.update(dict.fromkeys(listeners, tls))
        port: int = listeners[0].getsockname()[1]
        return port

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.add_reader(listener.fileno(), self._accept, listener)
        self._look_again()

    async def stop(self, grace: float | None) -> None:
        self._stop_listening()
        if self._looking is not None:
            self._looking.cancel()
        for connection in list(self._connections):
            connection.go_away()
        await self._until(
            lambda: not any(connection.is_busy for connection in self._connections), grace or 0.0
        )
        for connection in list(self._connections):
            connection.end_calls(grpc.StatusCode.UNAVAILABLE, "the service is stopping")
        if self._tasks:
            await asyncio.wait(self._tasks)
        # A client that has no call and was told to go away closes by itself; closed by us, it could
        # lose what it has not read. Whoever gives calls no time gives it to no last words either.
        last_words_seconds = min(self._limits.last_words_seconds, grace or 0.0)
        await self._until(lambda: not self._connections, last_words_seconds)
        for connection in list(self._connections):
            connection.close()
        self._stopped.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        try:
            async with asyncio.timeout(timeout):
                await self._stopped.wait()
        except TimeoutError:
            return True
        return False

    # As its connections see it.

    def own(self, task: "asyncio.Task[None]") -> None:
        """Keep a call's task until it has ended."""
        self._tasks.add(task)
        task.add_done_callback(self._let_go)

    def settled(self) -> None:
        """A connection has no call now, and nothing to write."""
        self._changed.set()

    def holds(self, change: int) -> bool:
        """A connection holds so many bytes more, or fewer, of requests; whether it may read on."""
        return self._all_held.add(change)

    def rests(self, connection: ServerConnection) -> None:
        """A connection has no call that was asked for in full, from now on."""
        self._resting.pop(connection, None)
        self._resting[connection] = asyncio.get_running_loop().time()

    def works(self, connection: ServerConnection) -> None:
        """It has one again."""
        self._resting.pop(connection, None)

    def left(self, connection: ServerConnection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._resting.pop(connection, None)
        self._by_host[connection.host] -= 1
        if not self._by_host[connection.host]:
            del self._by_host[connection.host]
        self._changed.set()

    def _let_go(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            failure_of(error, "a call")

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(MAX_ACCEPTS):
            try:
                connected, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NONE_LEFT:
                    raise
                logger.error("no connection can be taken: %s", error)
                self._pause(listener)
                return
            self._take(connected, address, self._listeners[listener])

    def _take(
        self, connected: socket.socket, address: tuple[object, ...], tls: ServerTls | None
    ) -> None:
        peer = peer_of(address)
        if not self._has_room_for(host_of(peer)):
            connected.close()
            return
        connected.setblocking(False)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
        limits = self._limits
        if self._max_request_bytes is not None:
            limits = replace(limits, max_request_bytes=self._max_request_bytes())
        taken = ServerConnection(
            *(connected, peer, self._methods, limits, self, self._turn),
            *(None if tls is None else tls.context(), self._doorkeeper),
        )
        self._connections.add(taken)
        self._by_host[taken.host] += 1
        self.rests(taken)

    def _has_room_for(self, host: str) -> bool:
        """Beyond the bounds, by closing the connection that has rested for longest: one of the same
        host, where that one has as many as it may.
        """
        if self._by_host[host] >= self._limits.max_host_connections:
            return self._makes_room(lambda connection: connection.host == host)
        return len(self._connections) < self._limits.max_connections or self._makes_room()

    def _makes_room(self, among: Callable[[ServerConnection], bool] = lambda _: True) -> bool:
        """First by those that have no call and have said everything: else strangers could keep
        their places with calls that they never ask for in full.
        """
        resting = next(filter(among, self._resting), None)
        idle = next((each for each in self._resting if among(each) and not each.is_busy), resting)
        if idle is not None:
            idle.give_way()
        return idle is not None

    def _look_again(self) -> None:
        """End what takes its time, now and then."""
        loop = asyncio.get_running_loop()
        for connection in list(self._connections):
            connection.end_late()
        earliest = loop.time() - self._limits.idle_seconds
        for connection in [each for each, since in self._resting.items() if since < earliest]:
            connection.give_way()
        shortest = min(self._limits.idle_seconds, self._limits.request_seconds)
        self._looking = loop.call_later(shortest / LOOKS, self._look_again)

    def _pause(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.fileno())
        loop.call_later(PAUSE_SECONDS, self._go_on, listener)

    def _go_on(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener.fileno(), self._accept, listener)

    def _stop_listening(self) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()

    async def _until(self, is_reached: Callable[[], bool], seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not is_reached():
                    self._changed.clear()
                    await self._changed.wait()

"""`python bench/hosting/relay.py HOST:PORT [PORT]`: a TCP relay that cuts, delays, truncates or
corrupts on order.

It listens at LOOPBACK: for the first port on any one, which it prints, and for a second one, which
others are told of, on the same. It prints `done` after each order, and ends with its stdin. It
needs nothing of ours, so that it starts at once, and is a process of its own, so that it takes its
turn beside what it connects.
"""

import asyncio
import random
import selectors
import sys
from contextlib import suppress
from dataclasses import dataclass, field

# Of the loopback's addresses not the one where services listen, so that their ports are free there.
LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
# A processor that sleeps wakes late: the end of a delay is waited for awake.
AWAKE_SECONDS = 0.001
CHUNK_BYTES = 1 << 18
# Of HTTP/2 (RFC 9113): what a client says first, and the head of a frame: length (3 bytes), type,
# flags, stream.
PREFACE_BYTES = 24
HEAD_BYTES = 9
LENGTH_BYTES = 3
DATA_FRAME = 0
# Frames with rows are longer; shorter ones are credits and cancellations, which no checksum guards.
LEAST_DAMAGED_BYTES = 256


@dataclass
class Damage:
    """What is done to everything that passes, at the moment."""

    is_cut: bool = False
    is_held: bool = False
    delay_seconds: float = 0.0
    every: int = 0
    draws: random.Random = field(default_factory=random.Random)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    num_long_frames: int = 0

    def become(self, order: str, *arguments: str) -> None:
        """Do what an order says from now on, and nothing else."""
        self.is_cut, self.is_held = order == "cut", order == "hold"
        self.delay_seconds = float(arguments[0]) if order == "delay" else 0.0
        self.every = int(arguments[0]) if order == "corrupt" else 0
        if order == "corrupt":
            self.draws.seed(int(arguments[1]))
        self.changed.set()
        self.changed = asyncio.Event()

    async def until_due(self, arrived: float) -> None:
        """Wait for as long as something that arrived then is kept back."""
        loop = asyncio.get_running_loop()
        while self.is_held or arrived + self.delay_seconds - AWAKE_SECONDS > loop.time():
            left = (
                None if self.is_held else arrived + self.delay_seconds - AWAKE_SECONDS - loop.time()
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.changed.wait()
        while arrived + self.delay_seconds > loop.time():  # noqa: ASYNC110
            await asyncio.sleep(0)

    def place_in(self, num_bytes: int) -> int | None:
        """Which byte of a data frame that begins is to be changed, if any."""
        if not self.every or num_bytes < LEAST_DAMAGED_BYTES:
            return None
        self.num_long_frames += 1
        return self.draws.randrange(num_bytes) if self.num_long_frames % self.every == 0 else None


class Frames:
    """Follows the HTTP/2 frames of one direction, however they are cut into chunks, and changes
    bytes in them.
    """

    def __init__(self, damage: Damage, preface_bytes: int) -> None:
        self._damage = damage
        self._head = bytearray()
        self._skipped = preface_bytes  # up to the next head
        self._place: int | None = None  # of the byte to be changed, from where we are

    def pass_through(self, chunk: bytes) -> bytes:
        """The chunk, as it is to be handed on."""
        passed, position = bytearray(chunk), 0
        while position < len(passed):
            if self._skipped:
                taken = min(self._skipped, len(passed) - position)
                self._change(passed, position, taken)
                self._skipped -= taken
            else:
                taken = min(HEAD_BYTES - len(self._head), len(passed) - position)
                self._head += passed[position : position + taken]
                if len(self._head) == HEAD_BYTES:
                    self._begin()
            position += taken
        return bytes(passed)

    def _begin(self) -> None:
        self._skipped = int.from_bytes(self._head[:LENGTH_BYTES], "big")
        self._place = (
            self._damage.place_in(self._skipped) if self._head[LENGTH_BYTES] == DATA_FRAME else None
        )
        self._head.clear()

    def _change(self, passed: bytearray, position: int, taken: int) -> None:
        if self._place is None:
            return
        if self._place < taken:
            passed[position + self._place] ^= self._damage.draws.randrange(1, 256)
            self._place = None
        else:
            self._place -= taken


class Connection:
    """Both ends of one connection, and what passes between them."""

    def __init__(
        self, damage: Damage, inward: asyncio.StreamWriter, outward: asyncio.StreamWriter
    ) -> None:
        self.bytes_left: int | None = None  # that the service may say yet
        self._damage = damage
        self._inward = inward
        self._outward = outward

    def abort(self) -> None:
        """Reset both ends."""
        self._inward.transport.abort()
        self._outward.transport.abort()

    async def relay(
        self, from_router: asyncio.StreamReader, from_service: asyncio.StreamReader
    ) -> None:
        """Hand on until an end is gone, then end the other one."""
        try:
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._carry(from_router, self._outward, PREFACE_BYTES))
                directions.create_task(self._carry(from_service, self._inward, 0))
        except* OSError:
            pass  # an end was reset
        finally:
            self.abort()

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, preface_bytes: int
    ) -> None:
        loop, frames = asyncio.get_running_loop(), Frames(self._damage, preface_bytes)
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def hand_on() -> None:
            while True:
                arrived, chunk = await under_way.get()
                await self._damage.until_due(arrived)
                if not chunk:
                    raise ConnectionResetError
                sink.write(chunk if sink is self._outward else self._cut_off(chunk))
                await sink.drain()
                if self.bytes_left == 0 and sink is self._inward:
                    raise ConnectionResetError

        async with asyncio.TaskGroup() as parts:
            parts.create_task(hand_on())
            while chunk := await source.read(CHUNK_BYTES):
                under_way.put_nowait((loop.time(), frames.pass_through(chunk)))
            under_way.put_nowait((loop.time(), b""))

    def _cut_off(self, chunk: bytes) -> bytes:
        if self.bytes_left is None:
            return chunk
        chunk = chunk[: self.bytes_left]
        self.bytes_left -= len(chunk)
        return chunk


class Relay:
    """All connections to one service."""

    def __init__(self, address: str, *same_ports: str) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self._same_ports = [int(port) for port in same_ports]
        self._damage = Damage()
        self._connections: set[Connection] = set()

    async def serve(self) -> None:
        """Relay, and obey, until stdin ends."""
        first, *_ = [
            await self._listening(self._port, 0),
            *[await self._listening(port, port) for port in self._same_ports],
        ]
        print(first.sockets[0].getsockname()[1], flush=True)
        orders = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
        )
        while order := (await orders.readline()).decode().split():
            self._obey(*order)
            print("done", flush=True)

    async def _listening(self, port: int, at: int) -> asyncio.Server:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connected(reader, writer, port)

        return await asyncio.start_server(connected, LOOPBACK, at)

    def _obey(self, order: str, *arguments: str) -> None:
        if order == "truncate":
            for connection in self._connections:
                connection.bytes_left = int(arguments[0])
            return
        self._damage.become(order, *arguments)
        if self._damage.is_cut:
            for connection in self._connections:
                connection.abort()

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        try:
            if self._damage.is_cut:
                raise ConnectionResetError
            from_service, outward = await asyncio.open_connection(self._host, port)
        except OSError:  # nobody listens there now
            writer.transport.abort()
            return
        connection = Connection(self._damage, writer, outward)
        self._connections.add(connection)
        try:
            await connection.relay(reader, from_service)
        finally:
            self._connections.discard(connection)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop that is on time: with epoll it would wake up to a millisecond late."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(Relay(*sys.argv[1:]).serve())

"""A client of HTTP/2 that says exactly what a test wants, all of it at once where that matters."""

import asyncio
import os
import select
import socket
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from hpack import Decoder

from moesaic.v1 import expert_pb2
from services.wire.header_blocks import encode_headers

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5
ENHANCE_YOUR_CALM = 11
LARGEST_WINDOW = (1 << 31) - 1

CALL = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/moesaic.v1.ExpertService/Dispatch"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def opening(stream: int, *more: tuple[str, str], call: Sequence[tuple[str, str]] = CALL) -> bytes:
    """The headers of a call."""
    return frame(HEADERS, END_HEADERS, stream, encode_headers((*call, *more)))


def message(stream: int, data: bytes) -> bytes:
    """A gRPC message in one DATA frame."""
    return frame(DATA, 0, stream, struct.pack(">BI", 0, len(data)) + data)


def half_close(stream: int) -> bytes:
    return frame(DATA, END_STREAM, stream)


def window_update(stream: int, count: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", count))


def reset(stream: int) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", 8))


class RawConnection:
    """What came on each stream: responses, trailers by name, and the code of a reset."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder()
        self._data: defaultdict[int, bytearray] = defaultdict(bytearray)
        self._changed = asyncio.Event()
        self.responses: defaultdict[int, list[expert_pb2.DispatchResponse]] = defaultdict(list)
        self.headers: defaultdict[int, dict[str, str]] = defaultdict(dict)
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.is_going_away = False
        self.is_closed = False

    def send(self, *frames: bytes) -> None:
        """Send them in one piece, which the other side reads as one where it is below 64 KiB."""
        self._writer.write(b"".join(frames))

    async def replies(self, stream: int, count: int) -> list[expert_pb2.FrameReply]:
        """The first replies on a stream, waited for."""
        while True:
            found = [one.reply for one in self.responses[stream] if one.HasField("reply")]
            if len(found) >= count:
                return found
            await self.progress()

    async def granted(self, stream: int) -> int:
        """The first grant, waited for."""
        while not self.responses[stream]:
            await self.progress()
        return self.responses[stream][0].granted_pairs

    async def status(self, stream: int) -> tuple[int, str]:
        """How a stream ended, waited for."""
        while stream not in self.ended:
            await self.progress()
        headers = self.headers[stream]
        return int(headers["grpc-status"]), headers.get("grpc-message", "")

    async def progress(self) -> None:
        """Wait until something came."""
        assert not self.is_closed, "the connection was closed"
        self._changed.clear()
        async with asyncio.timeout(20):
            await self._changed.wait()

    def wait_without_the_loop(self, count: int) -> bytes:
        """Keep the loop busy until so many bytes have come; what they are. They are read later."""
        shown: socket.socket = self._writer.get_extra_info("socket")
        with socket.socket(fileno=os.dup(shown.fileno())) as seen:
            while True:
                assert select.select([seen], [], [], 20)[0]
                if len(heard := seen.recv(1 << 16, socket.MSG_PEEK)) >= count:
                    return heard

    async def run(self) -> None:
        """Read until the other side closes."""
        try:
            while True:
                head = await self._reader.readexactly(9)
                kind, flags = head[3], head[4]
                stream = int.from_bytes(head[5:9], "big") & LARGEST_WINDOW
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                self._take(kind, flags, stream, payload)
                self._changed.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.is_closed = True
            self._writer.close()
            self._changed.set()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._data[stream] += payload
            self._take_messages(stream)
        elif kind == HEADERS:
            self.headers[stream] |= {str(n): str(v) for n, v in self._decoder.decode(payload)}
        elif kind == RST_STREAM:
            self.resets[stream] = int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags & ACK:
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self.is_going_away = True
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.ended.add(stream)

    def _take_messages(self, stream: int) -> None:
        data = self._data[stream]
        while len(data) >= 5 and len(data) >= 5 + (count := int.from_bytes(data[1:5], "big")):
            self.responses[stream].append(
                expert_pb2.DispatchResponse.FromString(bytes(data[5 : 5 + count]))
            )
            del data[: 5 + count]


@asynccontextmanager
async def raw_connection(
    port: int, *, window: int = LARGEST_WINDOW
) -> AsyncIterator[RawConnection]:
    """A connection to a port of this machine, whose streams may be sent so much at first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = RawConnection(reader, writer)
    settings = struct.pack(">HIHI", INITIAL_WINDOW_SIZE, window, MAX_FRAME_SIZE, (1 << 24) - 1)
    connection.send(PREFACE, frame(SETTINGS, 0, 0, settings), window_update(0, 1 << 30))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(connection.run())
        yield connection
        running.cancel()
        writer.close()

"""The other end of a native transport, byte by byte: what it is told is written by hand."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.router.peers.native_transport import NativeTransport
from services.wire.header_blocks import encode_headers
from tests.router.transports import NAME

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 1) -> bytes:
    """A frame of HTTP/2; of the one stream that there is, unless it says otherwise."""
    head = bytes([kind, flags]) + stream.to_bytes(4, "big")
    return len(payload).to_bytes(3, "big") + head + payload


def headers(*fields: tuple[str, str], ends: bool = False) -> bytes:
    """A header block in one frame."""
    flags = END_HEADERS | (END_STREAM if ends else 0)
    return frame(HEADERS, encode_headers(fields), flags=flags)


def message(data: bytes, *, ends: bool = False) -> bytes:
    """A gRPC message in one frame."""
    payload = b"\0" + len(data).to_bytes(4, "big") + data
    return frame(DATA, payload, flags=END_STREAM if ends else 0)


def number(value: int) -> bytes:
    """As a frame's payload has it."""
    return value.to_bytes(4, "big")


HELLO = frame(SETTINGS, stream=0)
BEGINNING = HELLO + headers((":status", "200"), ("content-type", "application/grpc"))


@asynccontextmanager
async def connected_pair() -> AsyncIterator[tuple[NativeTransport, socket.socket]]:
    """A transport, and the socket at its other end, which does not block."""
    ours, theirs = socket.socketpair()
    with theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        transport = NativeTransport(ours, "a:1", NAME)
        try:
            yield transport, theirs
        finally:
            transport.close()


async def tell(theirs: socket.socket, data: bytes) -> None:
    """Write all of it."""
    await asyncio.get_running_loop().sock_sendall(theirs, data)

"""A client that says to a server what it is told to, frame by frame, and hears frames."""

import asyncio

import grpc

from services.wire.header_blocks import HeaderDecoder, encode_headers
from tests.runtime.native_server.echo import ANSWER, Echo
from tests.wire.http2.frames import HEADERS, PREFACE, headers, settings

SECONDS = 20.0


class Served:
    """The service and where it is."""

    def __init__(self, echo: Echo, port: int) -> None:
        self.echo = echo
        self.port = port


class Stranger:
    """A client that says what it is told to, and hears frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = HeaderDecoder()

    async def hear(self, *kinds: int) -> tuple[int, int, bytes]:
        """The next frame of one of these kinds: its kind, its stream and its payload."""
        async with asyncio.timeout(SECONDS):
            while True:
                header = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(header[:3], "big"))
                if header[3] in kinds:
                    return header[3], int.from_bytes(header[5:], "big"), payload

    async def hear_headers(self) -> dict[str, str]:
        """The next header block."""
        return self.decoder.decode((await self.hear(HEADERS))[2])

    async def hear_end(self) -> None:
        """Until the server closes the connection."""
        async with asyncio.timeout(SECONDS):
            while await self.reader.read(1 << 16):
                pass


async def stranger(port: int, *said: bytes) -> Stranger:
    """Connected, with this said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join(said))
    return Stranger(reader, writer)


def request_of(path: str = ANSWER, **changed: str | None) -> bytes:
    """A request's header block; a header with None is left out."""
    fields: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        "content-type": "application/grpc",
        "te": "trailers",
    }
    for name, value in changed.items():
        fields[":method" if name == "method" else name.replace("_", "-")] = value
    return encode_headers([(name, value) for name, value in fields.items() if value is not None])


BEGUN = PREFACE + settings()
CALL = headers(1, request_of())


async def still_serves(served: Served) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        assert await channel.unary_unary(ANSWER)(b"next", timeout=SECONDS) == b"next"

"""`python -m tests.router.native.fuzz --seconds 60`: altered sessions of a service, read by the
router's end of a native stream.

Each session is a seed's, so that a failure is found again. It is most worth with a module built
with sanitizers, which `scripts/check-sanitised` does.
"""

import random
import socket
import sys

from services.router import _streams
from services.runtime.call_blocks import CallAnswer
from services.wire.errors import ServingError
from services.wire.header_blocks import encode_headers
from tests.fuzzing import fuzz
from tests.router.native.raw_service import (
    BEGINNING,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    headers,
    message,
    number,
)
from tests.router.transports import NAME
from tests.wire.fuzz import altered

MAX_MESSAGE_BYTES = 1 << 20
REQUEST = encode_headers([(":method", "POST"), (":path", "/a/b")])
TRAILERS = headers(("grpc-status", "9"), ("grpc-message", "that was all"), ends=True)


def noise(draw: random.Random) -> bytes:
    """A frame that may come at any time and changes nothing, or that breaks the rules."""
    settings = draw.randrange(8).to_bytes(2, "big") + number(draw.getrandbits(32))
    kinds = [DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, 9, 77]
    return draw.choice(
        [
            frame(PING, draw.randbytes(8), stream=0),
            frame(SETTINGS, settings, stream=0),
            frame(WINDOW_UPDATE, number(draw.getrandbits(31)), stream=draw.randrange(2)),
            frame(GOAWAY, number(draw.randrange(3)) + number(draw.randrange(14)), stream=0),
            frame(RST_STREAM, number(draw.randrange(14))),
            headers((":status", draw.choice(["103", "200", "503"]))),
            frame(
                draw.choice(kinds),
                draw.randbytes(draw.randrange(40)),
                flags=draw.getrandbits(8),
                stream=draw.randrange(4),
            ),
        ]
    )


def sent_in_pieces(
    stream: _streams.Stream, theirs: socket.socket, said: bytes, draw: random.Random
) -> list[bytes]:
    """Write all of it, with the stream's reads and writes between; the messages that came."""
    received: list[bytes] = []
    answer = CallAnswer(NAME)
    while said and not stream.is_over:
        piece = said[: draw.choice((1, 9, 100, 5000, 70_000))]
        said = said[len(piece) :]
        theirs.sendall(piece)
        received += [data for data, _ in stream.receive()]
        for block, _ in stream.take_headers():
            try:
                answer.take(block)
            except ServingError:
                return received  # as the transport does, which closes
        if draw.random() < 0.3:
            stream.send(draw.randbytes(draw.choice((0, 50, 40_000))))
        if stream.wants_write:
            stream.flush()
        drain(theirs)
    answer.broken(stream.reset_code, stream.why())
    return received


def drain(theirs: socket.socket) -> None:
    """Read what the stream has sent."""
    try:
        while theirs.recv(1 << 16, socket.MSG_DONTWAIT):
            pass
    except (BlockingIOError, ConnectionError):
        pass


def check(seed: int) -> None:
    """Play the seed's session. Raises AssertionError where what was not altered came otherwise."""
    draw = random.Random(seed)
    sizes = (0, 1, 300, 20_000, MAX_MESSAGE_BYTES // 4)
    messages = [draw.randbytes(draw.choice(sizes)) for _ in range(draw.randrange(5))]
    parts = [BEGINNING, *map(message, messages), TRAILERS]
    is_altered = draw.random() < 0.8
    if is_altered:
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(parts))
            parts[at : at + draw.randrange(2)] = [
                draw.choice((noise(draw), altered(parts[at], draw)))
            ]
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        stream = _streams.Stream(ours.detach(), REQUEST, MAX_MESSAGE_BYTES)
        received = sent_in_pieces(stream, theirs, b"".join(parts), draw)
        assert is_altered or (received == messages and stream.is_over)
        stream.close()


if __name__ == "__main__":
    sys.exit(fuzz(check, "altered sessions, with native streams"))

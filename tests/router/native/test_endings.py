"""However a service ends a call, and whatever it says that is none, is an error of the family that
gRPC's own transport raises for it.
"""

import pytest
from hpack import Encoder

from services.router.peers.native_transport import MAX_EARLY
from services.runtime.call_blocks import MAX_BLOCKS
from services.wire.errors import BadState, Overloaded, ServingError, Unavailable
from services.wire.header_blocks import TooMuchMetadata, UnreadableBlock
from tests.router.native.raw_service import (
    BEGINNING,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    HELLO,
    RST_STREAM,
    connected_pair,
    frame,
    headers,
    message,
    number,
    tell,
)
from tests.router.transports import NATIVE

pytestmark = NATIVE


def trailers(*fields: tuple[str, str]) -> bytes:
    """That end a call which had begun."""
    return BEGINNING + headers(*fields, ends=True)


def refused(*fields: tuple[str, str]) -> bytes:
    """An answer that is a status alone."""
    beginning = (":status", "200"), ("content-type", "application/grpc")
    return HELLO + headers(*beginning, *fields, ends=True)


def reset(code: int) -> bytes:
    return BEGINNING + frame(RST_STREAM, number(code))


STATUSES = [
    (trailers(("grpc-status", "0")), Unavailable, "a:1 ended the stream"),
    (trailers(("grpc-status", "1")), Unavailable, "a:1 cancelled the call"),
    (trailers(("grpc-status", "8"), ("grpc-message", "50%25 %E2%82%AC")), Overloaded, "^50% €$"),
    (trailers(("grpc-status", "9"), ("grpc-message", "%zz%")), BadState, "^%zz%$"),
    (trailers(("grpc-status", "9"), ("grpc-message", "%ff")), BadState, "^\ufffd$"),
    (trailers(("grpc-status", "14")), Unavailable, "failed without a message"),
    (trailers(("grpc-status", "77"), ("grpc-message", "odd")), ServingError, "^odd$"),
    (trailers(("grpc-status", "9" * 5000)), ServingError, "failed without a message"),
    (trailers(("grpc-status", "²")), ServingError, "failed without a message"),
    (refused(("grpc-status", "9"), ("grpc-message", "drained")), BadState, "^drained$"),
]
NO_CALLS = [
    (HELLO + headers((":status", "503")), Unavailable, "HTTP status 503"),
    (HELLO + headers((":status", "404"), ends=True), ServingError, "HTTP status 404"),
    (HELLO + headers((":status", "200")), ServingError, "with nothing, no gRPC"),
    (
        HELLO + headers((":status", "200"), ("content-type", "text/html")) + message(b"<html>"),
        ServingError,
        "with text/html, no gRPC",
    ),
    (BEGINNING + frame(DATA, flags=END_STREAM), Unavailable, "ended without a status"),
    (trailers(("other", "1")), Unavailable, "ended without a status"),
    (HELLO + frame(HEADERS, b"\xff\xff", flags=END_HEADERS), UnreadableBlock, "header block"),
    # A short block whose fields point at one long one.
    (
        HELLO + frame(HEADERS, Encoder().encode([("a", "b" * 3000)] * 8), flags=END_HEADERS),
        TooMuchMetadata,
        "more than 16384 bytes",
    ),
    (
        HELLO + headers((":status", "103")) * (MAX_BLOCKS + 1),
        ServingError,
        f"more than {MAX_BLOCKS} header blocks",
    ),
]
RESETS = [
    (reset(0), Unavailable, "code 0"),
    (reset(2), ServingError, "code 2"),
    (reset(7), Unavailable, "code 7"),
    (reset(8), Unavailable, "cancelled the call"),
    (reset(11), Overloaded, "code 11"),
    (reset(1 << 31), ServingError, f"code {1 << 31}"),
    (BEGINNING + frame(GOAWAY, number(0) + number(0), stream=0), Unavailable, "code 7"),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", Unavailable, "the stream to expert service a:1 broke"),
]


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [pytest.param(*ending, id=f"{n}") for n, ending in enumerate(STATUSES + NO_CALLS + RESETS)],
)
async def test_what_ends_a_call_is_an_error_of_its_kind(
    said: bytes, kind: type[ServingError], words: str
) -> None:
    received: list[bytes] = []
    async with connected_pair() as (transport, theirs):
        await tell(theirs, said)
        with pytest.raises(ServingError, match=words) as ended:
            await transport.deliver(lambda data, _: received.append(data))
        assert type(ended.value) is kind
        with pytest.raises(Unavailable, match="ended the call"):
            await transport.send(b"more")
    assert received == []


async def test_a_service_that_is_gone_ends_the_call() -> None:
    async with connected_pair() as (transport, theirs):
        await tell(theirs, BEGINNING)
        theirs.close()
        with pytest.raises(Unavailable, match="the stream to expert service a:1 broke"):
            await transport.deliver(lambda *_: None)


async def test_what_was_said_before_the_end_is_delivered_before_it() -> None:
    received: list[bytes] = []
    async with connected_pair() as (transport, theirs):
        end = headers(("grpc-status", "9"), ("grpc-message", "that was all"), ends=True)
        await tell(theirs, BEGINNING + message(b"one") + message(b"two") + end)
        with pytest.raises(BadState, match="that was all"):
            await transport.deliver(lambda data, _: received.append(data))
    assert received == [b"one", b"two"]


async def test_a_call_is_begun_when_it_was_answered_and_what_came_with_that_is_kept() -> None:
    received: list[bytes] = []
    async with connected_pair() as (transport, theirs):
        await tell(theirs, BEGINNING + message(b"credit"))
        await transport.begun(10)
        await tell(theirs, headers(("grpc-status", "0"), ends=True))
        with pytest.raises(Unavailable):
            await transport.deliver(lambda data, _: received.append(data))
    assert received == [b"credit"]


async def test_a_call_that_is_refused_is_not_begun() -> None:
    async with connected_pair() as (transport, theirs):
        await tell(theirs, refused(("grpc-status", "8"), ("grpc-message", "full")))
        with pytest.raises(Overloaded, match="full"):
            await transport.begun(10)


async def test_a_service_that_talks_on_before_anybody_listens_is_not_listened_to() -> None:
    async with connected_pair() as (transport, theirs):
        await tell(theirs, BEGINNING + message(b"") * (MAX_EARLY + 1))
        with pytest.raises(ServingError, match="sends without being asked"):
            await transport.begun(10)

"""Connections of many streams in C, against each other over a pair of sockets."""

import socket
from collections.abc import Iterator

import pytest

from services.wire.connections import AVAILABLE, Kind

if not AVAILABLE:
    pytest.skip("the connections were not compiled", allow_module_level=True)

from services.wire.connections import Connection

MAX_MESSAGE_BYTES = 1 << 20
MAX_UNSENT_BYTES = 8 << 20
MAX_HELD_BYTES = 4 << 20
Heard = list[tuple[int, int, bytes]]


class Pair:
    """A client and a server, which write and read in turns."""

    def __init__(self, max_streams: int = 100) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self.client, self.server = (
            Connection(
                end.detach(),
                is_server,
                MAX_MESSAGE_BYTES,
                max_streams,
                MAX_UNSENT_BYTES,
                MAX_HELD_BYTES,
            )
            for end, is_server in ((ours, False), (theirs, True))
        )

    def exchange(self) -> tuple[Heard, Heard]:
        """What client and server hear until neither has anything to write."""
        heard: tuple[Heard, Heard] = ([], [])
        while any([self.client.flush(), self.server.flush()]):
            told = [end.receive() for end in (self.client, self.server)]
            for into, events in zip(heard, told, strict=True):
                into += [(stream, kind, data) for stream, kind, data, _ in events]
            if not any(told) and self.client.is_drained and self.server.is_drained:
                break
        return heard


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.client.close()
    made.server.close()


def test_calls_go_both_ways(pair: Pair) -> None:
    first, second = pair.client.open(b"one"), pair.client.open(b"two")
    assert pair.client.send(first, b"question")
    assert pair.client.finish(first)
    _, heard = pair.exchange()
    assert heard == [
        (first, Kind.HEADERS, b"one"),
        (second, Kind.HEADERS, b"two"),
        (first, Kind.MESSAGE, b"question"),
        (first, Kind.REMOTE_ENDED, b""),
    ]
    assert pair.server.send_headers(first, b"head", False)
    assert pair.server.send(first, b"answer")
    assert pair.server.send_headers(first, b"tail", True)
    answer, _ = pair.exchange()
    assert answer == [
        (first, Kind.HEADERS, b"head"),
        (first, Kind.MESSAGE, b"answer"),
        (first, Kind.TRAILERS, b"tail"),
        (first, Kind.REMOTE_ENDED, b""),
    ]


def test_what_is_sent_in_a_turn_goes_out_in_one_write() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with theirs:
        client = Connection(
            ours.detach(), False, MAX_MESSAGE_BYTES, 100, MAX_UNSENT_BYTES, MAX_HELD_BYTES
        )
        for number in range(200):
            stream = client.open(b"h")
            if not stream:
                assert number == 100  # what a peer takes that has not said a number
                break
            assert client.send(stream, b"message")
            assert client.finish(stream)
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        assert client.flush()
        assert theirs.recv(1 << 20).count(b"message") == 100
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        client.close()


def test_long_messages_and_short_ones_keep_their_order(pair: Pair) -> None:
    stream = pair.client.open(b"h")
    sent = [bytes([number]) * (MAX_MESSAGE_BYTES if number % 3 == 1 else 9) for number in range(8)]
    for message in sent:
        assert pair.client.send(stream, message)
    assert pair.client.finish(stream)
    assert pair.client.unsent_bytes(stream) > MAX_MESSAGE_BYTES
    _, heard = pair.exchange()
    assert [data for _, kind, data in heard if kind == Kind.MESSAGE] == sent
    assert heard[-1] == (stream, Kind.REMOTE_ENDED, b"")
    assert pair.client.unsent_bytes(stream) == 0


def test_a_paused_stream_keeps_what_comes(pair: Pair) -> None:
    stream = pair.client.open(b"h")
    pair.exchange()
    pair.server.pause(stream)
    pair.client.send(stream, b"later")
    pair.client.finish(stream)
    assert pair.exchange() == ([], [])
    told = [(kind, data) for _, kind, data, _ in pair.server.resume(stream, 100)]
    assert told == [(Kind.MESSAGE, b"later"), (Kind.REMOTE_ENDED, b"")]


def test_no_more_is_told_at_once_than_is_asked_for(pair: Pair) -> None:
    stream = pair.client.open(b"h")
    pair.exchange()
    pair.server.pause(stream)
    for _ in range(25):
        pair.client.send(stream, b"")
    pair.client.finish(stream)
    pair.exchange()
    told = [len(pair.server.resume(stream, 10)) for _ in range(4)]
    assert told == [10, 10, 6, 0]


def test_a_flood_of_small_messages_is_read_little_by_little(pair: Pair) -> None:
    stream = pair.client.open(b"h")
    pair.exchange()
    for _ in range(60_000):
        pair.client.send(stream, b"")
    numbers: list[int] = []
    while sum(numbers) < 60_000:
        pair.client.flush()
        numbers.append(len(pair.server.receive()))
    assert max(numbers) < 30_000


def test_what_is_held_is_bounded_and_said(pair: Pair) -> None:
    streams = [pair.client.open(b"h") for _ in range(6)]
    pair.exchange()
    for stream in streams:
        pair.server.pause(stream)
        pair.client.send(stream, bytes(MAX_MESSAGE_BYTES - 5))
    _, heard = pair.exchange()
    gone = [stream for stream, kind, _ in heard if kind == Kind.RESET]
    assert len(gone) == 2
    assert pair.server.all_held_bytes() == MAX_HELD_BYTES
    kept = next(stream for stream in streams if stream not in gone)
    assert pair.server.held_bytes(kept) == MAX_MESSAGE_BYTES
    assert not pair.server.count_held(1)
    assert len(pair.server.resume(kept, 1)) == 1
    assert pair.server.count_held(1)
    assert pair.server.all_held_bytes() == MAX_HELD_BYTES - MAX_MESSAGE_BYTES + 2


def test_a_server_is_handed_a_compressed_message_as_it_is() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    server = Connection(
        theirs.detach(), True, MAX_MESSAGE_BYTES, 100, MAX_UNSENT_BYTES, MAX_HELD_BYTES
    )
    with ours:
        ours.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
        ours.sendall(bytes.fromhex("000001010400000001") + b"h")
        ours.sendall(bytes.fromhex("000008000100000001") + b"\1\0\0\0\3gzp")
        told = [(kind, data) for _, kind, data, _ in server.receive()]
    assert told == [
        (Kind.HEADERS, b"h"),
        (Kind.COMPRESSED, b"gzp"),
        (Kind.REMOTE_ENDED, b""),
    ]
    server.close()


def test_a_reset_is_told_with_its_code(pair: Pair) -> None:
    stream = pair.client.open(b"h")
    pair.exchange()
    assert pair.client.reset(stream, 8)
    pair.client.flush()
    assert pair.server.receive() == [(stream, Kind.RESET, b"", 8)]
    assert not pair.server.send(stream, b"too late")
    assert not pair.server.send_headers(stream, b"too late", True)


def test_a_connection_that_ends_resets_its_streams(pair: Pair) -> None:
    first, second = pair.client.open(b"h"), pair.client.open(b"h")
    pair.exchange()
    pair.client.close()
    told = pair.server.receive()
    assert sorted((stream, kind) for stream, kind, _, _ in told) == [
        (first, Kind.RESET),
        (second, Kind.RESET),
    ]
    assert pair.server.is_over
    assert pair.server.why() == "the peer closed the connection"
    assert not pair.server.flush()
    assert pair.server.receive() == []


def test_no_streams_are_opened_beyond_the_servers_number_nor_after_goaway() -> None:
    pair = Pair(max_streams=2)
    pair.exchange()
    first = pair.client.open(b"h")
    assert pair.client.open(b"h")
    assert pair.client.open(b"h") == 0
    pair.exchange()
    pair.server.goaway(0)
    pair.server.send_headers(first, b"t", True)
    pair.exchange()
    assert pair.client.open(b"h") == 0
    pair.client.close()
    pair.server.close()


def test_what_a_peer_does_not_take_is_bounded(pair: Pair) -> None:
    stream = pair.client.open(b"h")
    message = bytes(MAX_MESSAGE_BYTES)
    while pair.client.send(stream, message):
        pair.client.flush()
    assert pair.client.unsent_bytes(stream) <= MAX_UNSENT_BYTES
    assert not pair.client.is_over
    assert not pair.client.is_drained


def test_a_closed_connection_does_nothing() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        client = Connection(
            ours.detach(), False, MAX_MESSAGE_BYTES, 1, MAX_UNSENT_BYTES, MAX_HELD_BYTES
        )
        client.close()
        assert client.fileno() == -1
        assert client.is_over
        assert client.is_drained
        assert client.open(b"h") == 0
        assert client.receive() == client.resume(1, 100) == []
        assert not client.send(1, b"m")
        assert not client.flush()
        assert theirs.recv(1) == b""


def test_ids_that_are_none_are_refused(pair: Pair) -> None:
    with pytest.raises(OverflowError):
        pair.client.send(-1, b"m")
    assert not pair.client.send(1 << 40, b"m")
    with pytest.raises(TypeError):
        pair.client.open("text")  # type: ignore[arg-type]

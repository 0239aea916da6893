"""The framing in C: which events calls make, and which frames are their answer."""

import pytest

from tests.wire.http2 import frames as f
from tests.wire.http2.script import (
    ACK,
    CANCEL,
    FROM_CLIENT,
    FROM_SERVER,
    OPENED,
    REFUSED,
    Play,
    fed,
    goaway,
    reset,
)

WELL_FORMED = {
    "a whole call": (
        [fed(OPENED, f.data(1, b"one", b"", b"two"), f.data(1, flags=f.END_STREAM))],
        ["headers 1 'h'", "message 1 'one'", "message 1 ''", "message 1 'two'", "ended 1", ACK],
    ),
    "a call that ends with its headers": (
        [fed(FROM_CLIENT, f.headers(1, flags=f.END_HEADERS | f.END_STREAM))],
        ["headers 1 'h' end", "ended 1", ACK],
    ),
    "a message in many frames": (
        [fed(OPENED, *(f.frame(f.DATA, 1, bytes([b])) for b in f.prefixed(b"cut")))],
        ["headers 1 'h'", "message 1 'cut'", ACK],
    ),
    "streams that take turns": (
        [
            fed(OPENED, f.headers(3, b"g"), f.frame(f.DATA, 1, f.prefixed(b"first")[:7])),
            fed(f.data(3, b"third"), f.frame(f.DATA, 1, f.prefixed(b"first")[7:], f.END_STREAM)),
        ],
        [
            "headers 1 'h'",
            "headers 3 'g'",
            ACK,
            "message 3 'third'",
            "message 1 'first'",
            "ended 1",
        ],
    ),
    "padding": (
        [
            fed(FROM_CLIENT),
            fed(f.headers(1, f.padded(b"block", 9), f.END_HEADERS | f.PADDED)),
            fed(f.frame(f.DATA, 1, f.padded(f.prefixed(b"short"), 255), f.PADDED)),
            fed(f.frame(f.DATA, 1, f.padded(b"", 3), f.PADDED | f.END_STREAM)),
        ],
        [ACK, "headers 1 'block'", "message 1 'short'", "ended 1"],
    ),
    "a priority in headers, with padding": (
        [
            fed(FROM_CLIENT),
            fed(f.headers(1, f.padded(bytes(5) + b"block", 2), 4 | f.PADDED | f.PRIORITISED)),
        ],
        [ACK, "headers 1 'block'"],
    ),
    "continued headers": (
        [
            fed(FROM_CLIENT, f.headers(1, b"one ", f.END_STREAM)),
            fed(f.frame(f.CONTINUATION, 1, b"two "), f.frame(f.CONTINUATION, 1, b"three", 4)),
        ],
        [ACK, "headers 1 'one two three' end", "ended 1"],
    ),
    "what is passed over": (
        [
            fed(OPENED, f.frame(f.PRIORITY, 1, bytes(5)), f.frame(f.PRIORITY, 9, bytes(5))),
            fed(f.frame(77, 1, bytes(300), 255), f.frame(78, 0), f.settings(unknown=7)),
        ],
        ["headers 1 'h'", ACK, ACK],
    ),
    "a ping": (
        [fed(FROM_CLIENT, f.frame(f.PING, 0, b"12345678"), f.frame(f.PING, 0, bytes(8), f.ACK))],
        [ACK, "> PING 0 flags 1 length 8"],
    ),
    "a call that the peer gives up": (
        [fed(OPENED, f.rst_stream(1)), fed(f.rst_stream(1), f.window_update(1, 5))],
        ["headers 1 'h'", "reset 1 8", ACK],
    ),
    "frames of a stream that was reset here": (
        [
            fed(OPENED),
            "reset 1 8",
            fed(f.data(1, b"late"), f.headers(1, b"t", 5), f.rst_stream(1), f.window_update(1, 1)),
            fed(f.headers(3)),
        ],
        ["headers 1 'h'", ACK, reset(1, CANCEL), "headers 3 'h'"],
    ),
    "a peer that goes away": (
        [fed(OPENED, f.goaway(0), f.data(1, b"on")), "close"],
        [
            "headers 1 'h'",
            "message 1 'on'",
            ACK,
            "reset 1 8",
            "over: the peer closed the connection",
        ],
    ),
    "answers": (
        [fed(OPENED, f.data(1, b"!headers 1"), f.data(1, b"!send 1 3")), "send 1 0", "trailers 1"],
        [
            "headers 1 'h'",
            "message 1 '!headers 1'",
            "message 1 '!send 1 3'",
            ACK,
            "> HEADERS 1 flags 4 length 1",
            "> DATA 1 flags 0 length 8",
            "> DATA 1 flags 0 length 5",
            "> HEADERS 1 flags 5 length 1",
            reset(1, 0),
        ],
    ),
    "trailers after the client has ended": (
        [fed(OPENED, f.data(1, flags=f.END_STREAM)), "trailers 1", "send 1 1"],
        ["headers 1 'h'", "ended 1", ACK, "> HEADERS 1 flags 5 length 1", "no stream 1"],
    ),
    "a stream that vanishes in its own event": (
        [fed(OPENED, f.data(1, b"!reset 1 8", b"unheard")), fed(f.headers(3))],
        ["headers 1 'h'", "message 1 '!reset 1 8'", ACK, reset(1, CANCEL), "headers 3 'h'"],
    ),
    "a stream that vanishes in another's event": (
        [fed(OPENED, f.headers(3), f.data(3, b"!reset 1 8"), f.data(1, b"unheard"))],
        ["headers 1 'h'", "headers 3 'h'", "message 3 '!reset 1 8'", ACK, reset(1, CANCEL)],
    ),
    "a stream that ends in its own event": (
        [fed(OPENED, f.data(1, b"!trailers 1", b"unheard"), f.data(1, flags=f.END_STREAM))],
        [
            "headers 1 'h'",
            "message 1 '!trailers 1'",
            ACK,
            "> HEADERS 1 flags 5 length 1",
            reset(1, 0),
        ],
    ),
    "a paused stream": (
        [
            fed(OPENED, f.headers(3), f.data(1, b"!pause 1", b"kept"), f.data(3, b"heard")),
            fed(f.data(1, b"too", flags=f.END_STREAM)),
            "resume 1",
        ],
        [
            "headers 1 'h'",
            "headers 3 'h'",
            "message 1 '!pause 1'",
            "message 3 'heard'",
            ACK,
            "message 1 'kept'",
            "message 1 'too'",
            "ended 1",
        ],
    ),
    "a stream that is paused again while it is resumed": (
        [
            fed(OPENED, f.data(1, b"!pause 1", b"!pause 1", b"last", flags=f.END_STREAM)),
            "resume 1",
            "resume 1",
        ],
        [
            "headers 1 'h'",
            "message 1 '!pause 1'",
            ACK,
            "message 1 '!pause 1'",
            "message 1 'last'",
            "ended 1",
        ],
    ),
    "a stream that is resumed in its own event": (
        [fed(OPENED, f.data(1, b"!pause 1"), f.data(1, b"!resume 1", b"next"))],
        ["headers 1 'h'", "message 1 '!pause 1'", ACK],
    ),
    "a stream that another resumes": (
        [fed(OPENED, f.headers(3), f.data(1, b"!pause 1", b"kept"), f.data(3, b"!resume 1"))],
        [
            "headers 1 'h'",
            "headers 3 'h'",
            "message 1 '!pause 1'",
            "message 3 '!resume 1'",
            "message 1 'kept'",
            ACK,
        ],
    ),
    "a connection that is lost while it is written to": (
        [
            fed(OPENED, f.headers(3), f.headers(5)),
            "vanish",
            "send 1 3",
            "reset 1 8",
            "trailers 3",
            "receive",
        ],
        [
            *(f"headers {stream} 'h'" for stream in (1, 3, 5)),
            ACK,
            "send: -1",
            "reset: -1",
            "trailers: -1",
            "reset 5 8",
            "over: the socket cannot be written to",
        ],
    ),
    "a server that takes no more": (
        [fed(OPENED), "goaway 0", fed(f.headers(3), f.data(1, b"on"), f.data(3, b"not heard"))],
        ["headers 1 'h'", ACK, goaway(1, 0), "message 1 'on'", reset(3, REFUSED)],
    ),
}


@pytest.mark.parametrize("name", WELL_FORMED)
def test_a_server_takes(play: Play, name: str) -> None:
    script, said = WELL_FORMED[name]
    assert play("server", *script) == said


ANSWERED = f.headers(1, b"ok")
TRAILERS = f.headers(1, b"t", f.END_HEADERS | f.END_STREAM)
OPENING = ["open 3", fed(FROM_SERVER)]
OPEN = ["> HEADERS 1 flags 4 length 3", ACK]

OF_A_CLIENT = {
    "a whole call": (
        [
            *OPENING,
            "send 1 4",
            "finish 1",
            "finish 1",
            fed(ANSWERED, f.data(1, b"one"), TRAILERS),
            "unsent 1",
        ],
        [
            *OPEN,
            "> DATA 1 flags 0 length 9",
            "> DATA 1 flags 1 length 0",
            "headers 1 'ok'",
            "message 1 'one'",
            "headers 1 't' end",
            "ended 1",
            "no stream 1",
        ],
    ),
    "an answer of trailers alone": (
        [*OPENING, fed(TRAILERS, f.rst_stream(1, 0))],
        [*OPEN, "headers 1 't' end", "ended 1", "reset 1 0"],
    ),
    "trailers behind messages that are kept": (
        [
            *OPENING,
            fed(ANSWERED, f.data(1, b"!pause 1", b"kept"), TRAILERS, f.rst_stream(1, 0)),
            "resume 1",
            "resume 1",
        ],
        [
            *OPEN,
            "headers 1 'ok'",
            "message 1 '!pause 1'",
            "message 1 'kept'",
            "headers 1 't' end",
            "ended 1",
            "no stream 1",
        ],
    ),
    "headers before the headers": (
        [*OPENING, fed(f.headers(1, b"103"), ANSWERED)],
        [*OPEN, "headers 1 '103'", "headers 1 'ok'"],
    ),
    "a server that goes away": (
        [*OPENING, "open 1", fed(f.goaway(1), ANSWERED), "open 1"],
        [*OPEN, "> HEADERS 3 flags 4 length 1", "reset 3 7", "headers 1 'ok'", "open: -1"],
    ),
    "no more streams than the server takes": (
        [
            "open 1",
            fed(f.settings(max_concurrent_streams=2)),
            "open 1",
            "open 1",
            "reset 1 8",
            "open 1",
        ],
        [
            "> HEADERS 1 flags 4 length 1",
            ACK,
            "> HEADERS 3 flags 4 length 1",
            "open: -1",
            reset(1, CANCEL),
            "> HEADERS 5 flags 4 length 1",
        ],
    ),
    "a stream that is opened in an event": (
        [*OPENING, fed(ANSWERED, f.data(1, b"!open 2"))],
        [*OPEN, "headers 1 'ok'", "message 1 '!open 2'", "> HEADERS 3 flags 4 length 2"],
    ),
    "a block that is longer than a frame": (
        ["open 40000", fed(FROM_SERVER)],
        [
            "> HEADERS 1 flags 0 length 16384",
            "> CONTINUATION 1 flags 0 length 16384",
            "> CONTINUATION 1 flags 4 length 7232",
            ACK,
        ],
    ),
}


@pytest.mark.parametrize("name", OF_A_CLIENT)
def test_a_client_takes(play: Play, name: str) -> None:
    script, said = OF_A_CLIENT[name]
    assert play("client", *script) == said

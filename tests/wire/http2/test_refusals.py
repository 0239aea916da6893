"""The framing in C: what ends a connection, and what only a stream."""

import pytest

from tests.wire.http2 import frames as f
from tests.wire.http2.script import (
    ACK,
    CALM,
    CLOSED,
    FLOW_CONTROL,
    FRAME_SIZE,
    FROM_CLIENT,
    FROM_SERVER,
    INTERNAL,
    OPENED,
    PROTOCOL_ERROR,
    Play,
    fed,
    goaway,
    reset,
)

ENDS_THE_CONNECTION = {
    "no preface": (b"GET / HTTP/1.1\r\n", 0, PROTOCOL_ERROR),
    "a preface that goes wrong late": (f.PREFACE[:-1] + b"x", 0, PROTOCOL_ERROR),
    "no SETTINGS first": (f.PREFACE + f.frame(f.PING, 0, bytes(8)), 0, PROTOCOL_ERROR),
    "an ACK first": (f.PREFACE + f.frame(f.SETTINGS, 0, flags=f.ACK), 0, PROTOCOL_ERROR),
    "SETTINGS on a stream": (FROM_CLIENT + f.frame(f.SETTINGS, 1), 0, PROTOCOL_ERROR),
    "SETTINGS of a wrong length": (FROM_CLIENT + f.frame(f.SETTINGS, 0, bytes(5)), 0, FRAME_SIZE),
    "an ACK with settings": (FROM_CLIENT + f.frame(f.SETTINGS, 0, bytes(6), f.ACK), 0, FRAME_SIZE),
    "a push neither wanted nor not": (
        f.PREFACE + f.settings(enable_push=2),
        0,
        PROTOCOL_ERROR,
    ),
    "a window above the largest": (
        f.PREFACE + f.settings(initial_window_size=1 << 31),
        0,
        FLOW_CONTROL,
    ),
    "frames too small": (f.PREFACE + f.settings(max_frame_size=16383), 0, PROTOCOL_ERROR),
    "frames too large": (f.PREFACE + f.settings(max_frame_size=1 << 24), 0, PROTOCOL_ERROR),
    "a ping on a stream": (FROM_CLIENT + f.frame(f.PING, 1, bytes(8)), 0, PROTOCOL_ERROR),
    "a ping of a wrong length": (FROM_CLIENT + f.frame(f.PING, 0, bytes(7)), 0, FRAME_SIZE),
    "GOAWAY on a stream": (FROM_CLIENT + f.frame(f.GOAWAY, 1, bytes(8)), 0, PROTOCOL_ERROR),
    "GOAWAY of a wrong length": (FROM_CLIENT + f.frame(f.GOAWAY, 0, bytes(7)), 0, FRAME_SIZE),
    "a reset of no stream": (FROM_CLIENT + f.rst_stream(0), 0, PROTOCOL_ERROR),
    "a reset of an idle stream": (FROM_CLIENT + f.rst_stream(1), 0, PROTOCOL_ERROR),
    "a reset of a wrong length": (OPENED + f.frame(f.RST_STREAM, 1, bytes(5)), 1, FRAME_SIZE),
    "a window of a wrong length": (OPENED + f.frame(f.WINDOW_UPDATE, 1, bytes(3)), 1, FRAME_SIZE),
    "a window of an idle stream": (FROM_CLIENT + f.window_update(1, 1), 0, PROTOCOL_ERROR),
    "a window that grows by nothing": (OPENED + f.window_update(0, 0), 1, PROTOCOL_ERROR),
    "the connection's window grown too far": (
        OPENED + f.window_update(0, (1 << 31) - 1),
        1,
        FLOW_CONTROL,
    ),
    "windows grown too far by a setting": (
        OPENED + f.window_update(1, 1 << 30) + f.settings(initial_window_size=(1 << 31) - 1),
        1,
        FLOW_CONTROL,
    ),
    "a pushed stream": (OPENED + f.frame(f.PUSH_PROMISE, 1, bytes(5)), 1, PROTOCOL_ERROR),
    "DATA of no stream": (FROM_CLIENT + f.data(0, b"x"), 0, PROTOCOL_ERROR),
    "DATA of an idle stream": (OPENED + f.data(3, b"x"), 1, PROTOCOL_ERROR),
    "more padding than DATA": (OPENED + f.frame(f.DATA, 1, b"\2\0", f.PADDED), 1, PROTOCOL_ERROR),
    "padded DATA of no length": (OPENED + f.frame(f.DATA, 1, b"", f.PADDED), 1, PROTOCOL_ERROR),
    "more padding than headers": (
        FROM_CLIENT + f.headers(1, b"\2h", f.END_HEADERS | f.PADDED),
        0,
        PROTOCOL_ERROR,
    ),
    "headers shorter than their priority": (
        FROM_CLIENT + f.headers(1, b"hhh", f.END_HEADERS | f.PRIORITISED),
        0,
        FRAME_SIZE,
    ),
    "headers of no stream": (FROM_CLIENT + f.headers(0), 0, PROTOCOL_ERROR),
    "a stream of the wrong parity": (FROM_CLIENT + f.headers(2), 0, PROTOCOL_ERROR),
    "a stream below another": (FROM_CLIENT + f.headers(3) + f.headers(1), 3, PROTOCOL_ERROR),
    "CONTINUATION alone": (OPENED + f.frame(f.CONTINUATION, 1, b"h", 4), 1, PROTOCOL_ERROR),
    "CONTINUATION of another stream": (
        FROM_CLIENT + f.headers(1, flags=0) + f.frame(f.CONTINUATION, 3, b"h", 4),
        0,
        PROTOCOL_ERROR,
    ),
    "a frame within a header block": (
        FROM_CLIENT + f.headers(1, flags=0) + f.frame(f.PING, 0, bytes(8)),
        0,
        PROTOCOL_ERROR,
    ),
    "an unknown frame within a header block": (
        FROM_CLIENT + f.headers(1, flags=0) + f.frame(99, 0),
        0,
        PROTOCOL_ERROR,
    ),
    "a header block that is too long": (
        FROM_CLIENT + f.headers(1, bytes(16385)),
        0,
        CALM,
    ),
    "a header block that is continued for too long": (
        FROM_CLIENT + f.headers(1, bytes(9000), 0) + f.frame(f.CONTINUATION, 1, bytes(9000)),
        0,
        CALM,
    ),
    "settings without end": (FROM_CLIENT + f.frame(f.SETTINGS, 0, bytes(16386)), 0, CALM),
    "a priority of no stream": (FROM_CLIENT + f.frame(f.PRIORITY, 0, bytes(5)), 0, PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", ENDS_THE_CONNECTION)
def test_a_server_ends_the_connection_over(play: Play, name: str) -> None:
    sent, last, code = ENDS_THE_CONNECTION[name]
    said = play("server", fed(sent))
    assert said[-1] == goaway(last, code)
    assert sum(line.startswith("over: ") for line in said) == 1
    assert any(line.startswith("headers ") for line in said) == bool(last)
    assert any(line.startswith("reset ") for line in said) == bool(last)


ENDS_A_CLIENTS = {
    "a push that is allowed": f.settings(enable_push=1),
    "a stream that only it may open": FROM_SERVER + f.headers(3),
    "a stream of its own": FROM_SERVER + f.headers(2),
    "DATA of a stream of its own": FROM_SERVER + f.data(2, b"x"),
    "a pushed stream": FROM_SERVER + f.frame(f.PUSH_PROMISE, 1, bytes(5)),
}


@pytest.mark.parametrize("name", ENDS_A_CLIENTS)
def test_a_client_ends_the_connection_over(play: Play, name: str) -> None:
    said = play("client", "open 1", fed(ENDS_A_CLIENTS[name]))
    assert said[-1] == goaway(0, PROTOCOL_ERROR)
    assert "reset 1 8" in said


ENDS_THE_STREAM = {
    "a compressed message": (f.frame(f.DATA, 1, f.prefixed(b"x", 1)), INTERNAL),
    "a message that is too long": (f.frame(f.DATA, 1, b"\0\1\0\0\1"), CALM),
    "an end in the middle of a message": (f.frame(f.DATA, 1, b"\0\0\0", f.END_STREAM), INTERNAL),
    "trailers in the middle of a message": (
        f.frame(f.DATA, 1, b"\0\0\0\0\2x") + f.headers(1, b"t", f.END_HEADERS | f.END_STREAM),
        INTERNAL,
    ),
    "headers in the middle": (f.headers(1), PROTOCOL_ERROR),
    "DATA after the end": (f.data(1, flags=f.END_STREAM) + f.data(1, b"x"), CLOSED),
    "headers after the end": (f.data(1, flags=f.END_STREAM) + f.headers(1), CLOSED),
    "a window that grows by nothing": (f.window_update(1, 0), PROTOCOL_ERROR),
    "a window that grows too far": (f.window_update(1, (1 << 31) - 1), FLOW_CONTROL),
    "a priority of a wrong length": (f.frame(f.PRIORITY, 1, bytes(4)), FRAME_SIZE),
}


@pytest.mark.parametrize("name", ENDS_THE_STREAM)
def test_a_server_ends_only_the_stream_over(play: Play, name: str) -> None:
    sent, code = ENDS_THE_STREAM[name]
    script = fed(OPENED, f.headers(3), sent, f.data(1, b"not heard"), f.data(3, b"heard"))
    said = play("server", script, max_message_bytes=1 << 16)
    assert f"reset 1 {code}" in said
    assert said[-3:] == ["message 3 'heard'", ACK, reset(1, code)]


def test_a_client_ends_a_stream_with_messages_before_headers(play: Play) -> None:
    said = play("client", "open 1", fed(FROM_SERVER, f.data(1, b"x")))
    assert said == [
        "> HEADERS 1 flags 4 length 1",
        "reset 1 1",
        ACK,
        reset(1, PROTOCOL_ERROR),
    ]

"""The framing in C: flow control both ways."""

import pytest

from tests.wire.http2 import frames as f
from tests.wire.http2.script import (
    ACK,
    FLOW_CONTROL,
    FROM_CLIENT,
    OPENED,
    PROTOCOL_ERROR,
    Play,
    fed,
    goaway,
    reset,
)

WINDOWS = {
    "a stream's window": (
        [
            fed(f.PREFACE, f.settings(initial_window_size=10), f.headers(1)),
            "send 1 20",
            "unsent 1",
            fed(f.window_update(1, 5)),
            fed(f.window_update(1, 100)),
            "unsent 1",
        ],
        [
            "headers 1 'h'",
            ACK,
            "> DATA 1 flags 0 length 10",
            "unsent: 1",
            "> DATA 1 flags 0 length 5",
            "> DATA 1 flags 0 length 10",
        ],
    ),
    "a window that grows by a setting": (
        [
            fed(f.PREFACE, f.settings(initial_window_size=0), f.headers(1)),
            "send 1 1",
            "send 1 2",
            "unsent 1",
            "drained",
            fed(f.settings(initial_window_size=6)),
            "unsent 1",
            fed(f.settings(initial_window_size=50)),
            "drained",
        ],
        [
            "headers 1 'h'",
            ACK,
            "unsent: 2",
            ACK,
            "> DATA 1 flags 0 length 6",
            "unsent: 1",
            ACK,
            "> DATA 1 flags 0 length 7",
            "drained: 1",
        ],
    ),
    "a window that falls below nothing": (
        [
            fed(f.PREFACE, f.settings(initial_window_size=30), f.headers(1)),
            "send 1 20",
            fed(f.settings(initial_window_size=10)),
            "send 1 3",
            fed(f.window_update(1, 15)),
            fed(f.window_update(1, 1)),
            fed(f.window_update(1, 100)),
        ],
        [
            "headers 1 'h'",
            ACK,
            "> DATA 1 flags 0 length 25",
            ACK,
            "> DATA 1 flags 0 length 1",
            "> DATA 1 flags 0 length 7",
        ],
    ),
    "the connection's window, which streams share in turns": (
        [
            fed(f.PREFACE, f.settings(), f.headers(1), f.headers(3), f.headers(5)),
            fed(f.settings(initial_window_size=1 << 20)),
            "send 1 65530",
            "send 3 20000",
            "send 5 20000",
            fed(f.window_update(0, 20000)),
            fed(f.window_update(0, 40000)),
        ],
        [
            "headers 1 'h'",
            "headers 3 'h'",
            "headers 5 'h'",
            ACK,
            ACK,
            "> DATA 1 flags 0 length 16384",
            "> DATA 1 flags 0 length 16384",
            "> DATA 1 flags 0 length 16384",
            "> DATA 1 flags 0 length 16383",
            "> DATA 3 flags 0 length 16384",
            "> DATA 5 flags 0 length 3616",
            "> DATA 3 flags 0 length 3621",
            "> DATA 5 flags 0 length 16384",
            "> DATA 5 flags 0 length 5",
        ],
    ),
    "trailers behind waiting messages": (
        [
            fed(f.PREFACE, f.settings(initial_window_size=10), f.headers(1)),
            "send 1 20",
            "trailers 1",
            "unsent 1",
            fed(f.data(1, b"not heard")),
            fed(f.window_update(1, 15)),
            "trailers 1",
        ],
        [
            "headers 1 'h'",
            ACK,
            "> DATA 1 flags 0 length 10",
            "no stream 1",
            "> DATA 1 flags 0 length 15",
            "> HEADERS 1 flags 5 length 1",
            reset(1, 0),
            "no stream 1",
        ],
    ),
    "a stream reset while it has trailers behind messages": (
        [
            fed(f.PREFACE, f.settings(initial_window_size=10), f.headers(1)),
            "send 1 20",
            "trailers 1",
            fed(f.rst_stream(1)),
            "drained",
        ],
        ["headers 1 'h'", ACK, "> DATA 1 flags 0 length 10", "drained: 1"],
    ),
    "longer frames": (
        [
            fed(f.PREFACE, f.settings(max_frame_size=20000, initial_window_size=1 << 20)),
            fed(f.headers(1)),
            "send 1 30000",
        ],
        [ACK, "headers 1 'h'", "> DATA 1 flags 0 length 20000", "> DATA 1 flags 0 length 10005"],
    ),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_what_is_sent_keeps_to(play: Play, name: str) -> None:
    script, said = WINDOWS[name]
    assert play("server", *script) == said


def test_windows_are_given_back_at_half(play: Play) -> None:
    """With messages of at most 64 KiB a stream's window is 128 KiB and the connection's 512 KiB."""
    messages = [f.data(1, bytes(60_000)) for _ in range(9)]
    said = play("server", fed(OPENED), *map(fed, messages), max_message_bytes=1 << 16)
    assert [line for line in said if "WINDOW_UPDATE" in line] == [
        "> WINDOW_UPDATE 1 flags 0 120010",
        "> WINDOW_UPDATE 1 flags 0 120010",
        "> WINDOW_UPDATE 0 flags 0 300025",
        "> WINDOW_UPDATE 1 flags 0 120010",
        "> WINDOW_UPDATE 1 flags 0 120010",
    ]


def test_a_paused_stream_is_given_no_window(play: Play) -> None:
    kept = [fed(f.data(1, bytes(60_000))) for _ in range(2)]
    script = [fed(OPENED), "pause 1", *kept]
    said = play("server", *script, "resume 1", max_message_bytes=1 << 16)
    assert said[2:] == ["message 1 60000 bytes"] * 2 + ["> WINDOW_UPDATE 1 flags 0 120010"]
    said = play("server", *script, kept[0], max_message_bytes=1 << 16)
    assert said[2:] == ["reset 1 3", reset(1, FLOW_CONTROL)]


def test_padding_counts_for_the_windows(play: Play) -> None:
    padded = f.frame(f.DATA, 1, f.padded(f.prefixed(b""), 255), f.PADDED)
    said = play("server", fed(OPENED, *[padded] * 252), max_message_bytes=1 << 16)
    assert said[-1] == "> WINDOW_UPDATE 1 flags 0 65767"
    assert said.count("message 1 ''") == 252


def test_a_peer_that_passes_the_connections_window_is_refused(play: Play) -> None:
    """What lies on streams that were reset counts too, and is given back."""
    limits = {"max_message_bytes": 1 << 16}
    opened = [f.headers(stream) for stream in range(1, 11, 2)]
    filled = [f.data(stream, bytes(60_000)) + f.data(stream, bytes(60_000)) for stream in (1, 3, 5)]
    pausing = [f"pause {stream}" for stream in range(1, 11, 2)]
    said = play("server", fed(FROM_CLIENT, *opened), *pausing, fed(*filled), **limits)
    assert said[-1] == "> WINDOW_UPDATE 0 flags 0 300025"
    said = play("server", fed(FROM_CLIENT), fed(f.frame(f.DATA, 1, bytes(1))), **limits)
    assert said[-1] == goaway(0, PROTOCOL_ERROR)

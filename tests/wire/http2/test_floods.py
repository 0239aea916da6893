"""The framing in C: what a peer may cost."""

import pytest

from tests.wire.http2 import frames as f
from tests.wire.http2.script import (
    ACK,
    CALM,
    FROM_CLIENT,
    OPENED,
    REFUSED,
    Play,
    fed,
    goaway,
    reset,
)

FLOODS = {
    "pings": f.frame(f.PING, 0, bytes(8)),
    "answered pings": f.frame(f.PING, 0, bytes(8), f.ACK),
    "settings": f.settings(),
    "priorities": f.frame(f.PRIORITY, 1, bytes(5)),
    "unknown frames": f.frame(99, 1),
    "empty DATA": f.frame(f.DATA, 1),
    "resets": f.rst_stream(1),
    "GOAWAY": f.goaway(1),
    "trailers of a closed stream": f.headers(1, flags=f.END_HEADERS | f.END_STREAM),
    "windows": f.window_update(0, 1) * 10,
    "windows of a closed stream": f.window_update(1, 1) * 10,
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_refused(play: Play, name: str) -> None:
    opening = OPENED + (f.rst_stream(1) if "closed" in name or name == "resets" else b"")
    said = play("server", fed(opening, FLOODS[name] * 40), max_control_frames=50)
    assert not any(line.startswith("over: ") for line in said)
    said = play("server", fed(opening, FLOODS[name] * 60), max_control_frames=50)
    assert said[-1] == goaway(1, CALM)


def test_streams_that_are_opened_and_reset_in_turn_are_refused(play: Play) -> None:
    rapid = [f.headers(stream) + f.rst_stream(stream) for stream in range(1, 200, 2)]
    said = play("server", fed(FROM_CLIENT, *rapid), max_control_frames=50)
    assert said[-1].endswith(f"code {CALM}")
    assert sum(line.startswith("headers ") for line in said) <= 50


def test_a_header_block_in_endless_pieces_is_refused(play: Play) -> None:
    pieces = [f.frame(f.CONTINUATION, 1) for _ in range(60)]
    said = play("server", fed(FROM_CLIENT, f.headers(1, flags=0), *pieces), max_control_frames=50)
    assert said[-1] == goaway(0, CALM)


def test_streams_above_the_limit_are_refused(play: Play) -> None:
    opened = [f.headers(stream) for stream in range(1, 9, 2)]
    said = play(
        "server", fed(FROM_CLIENT, *opened), fed(f.rst_stream(1), f.headers(9)), max_streams=3
    )
    assert said == [
        *(f"headers {stream} 'h'" for stream in (1, 3, 5)),
        ACK,
        reset(7, REFUSED),
        "reset 1 8",
        "headers 9 'h'",
    ]


def test_what_waits_for_a_peer_is_bounded(play: Play) -> None:
    script = [fed(f.PREFACE, f.settings(initial_window_size=0), f.headers(1))]
    said = play("server", *script, *["send 1 400"] * 3, "unsent 1", max_unsent_bytes=1000)
    assert said == ["headers 1 'h'", ACK, "send: -1", "unsent: 2"]


def test_messages_that_are_not_whole_are_bounded_for_the_connection(play: Play) -> None:
    """With messages of at most 64 KiB one stream may hold 128 KiB whatever the bound is."""
    half = f.prefixed(bytes(60_000))[:-1]
    opened = [f.headers(stream) + f.frame(f.DATA, stream, half) for stream in (1, 3, 5)]
    rest = f.frame(f.DATA, 1, bytes(1))
    said = play(
        "server",
        *map(fed, (FROM_CLIENT, *opened, rest, opened[2].replace(b"\5", b"\7"))),
        max_message_bytes=1 << 16,
        max_held_bytes=1000,
    )
    assert [line for line in said if "headers" not in line] == [
        ACK,
        "reset 5 11",
        reset(5, CALM),
        "message 1 60000 bytes",
    ]


def test_what_paused_streams_keep_is_bounded_for_the_connection(play: Play) -> None:
    said = play(
        "server",
        fed(FROM_CLIENT, *map(f.headers, (1, 3, 5))),
        *("pause 1", "pause 3", "pause 5"),
        *(fed(f.data(stream, bytes(60_000))) for stream in (1, 3, 5)),
        "resume 1",
        fed(f.data(3, b"more")),
        "resume 3",
        max_message_bytes=1 << 16,
        max_held_bytes=1000,
    )
    assert [line for line in said if "headers" not in line] == [
        ACK,
        "reset 5 11",
        reset(5, CALM),
        "message 1 60000 bytes",
        "message 3 60000 bytes",
        "message 3 'more'",
    ]


def test_a_paused_stream_hands_out_no_more_at_once_than_is_asked_for(play: Play) -> None:
    said = play(
        "server",
        fed(OPENED),
        "pause 1",
        fed(f.data(1, *[b""] * 5, flags=f.END_STREAM)),
        *("resume 1 2", "unsent 1", "resume 1 3", "resume 1 1"),
    )
    assert said[2:] == ["message 1 ''"] * 5 + ["ended 1"]

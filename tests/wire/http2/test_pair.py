"""The framing in C against itself: as client and as server, with sockets that take little."""

import subprocess

import pytest

from tests.wire.http2.conftest import Build


@pytest.mark.parametrize(
    ("streams", "messages", "max_bytes", "socket_bytes", "window_bytes"),
    [
        pytest.param(4, 30, 1 << 20, 4096, 1 << 20, id="long messages, small sockets"),
        pytest.param(5, 40, 1 << 20, 200_000, 1 << 24, id="long messages"),
        pytest.param(1, 30, 100_000, 2000, 100_000, id="one stream"),
        pytest.param(40, 20, 70_000, 1000, 70_000, id="many streams"),
        pytest.param(8, 200, 3000, 1000, 3000, id="small messages"),
        pytest.param(1, 0, 1, 4096, 1, id="no messages"),
    ],
)
def test_messages_arrive_whole_and_in_order_both_ways(
    build: Build,
    streams: int,
    messages: int,
    max_bytes: int,
    socket_bytes: int,
    window_bytes: int,
) -> None:
    arguments = ["1", streams, messages, max_bytes, socket_bytes, window_bytes]
    ended = subprocess.run(
        [build("pair"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"{2 * streams * messages} messages")

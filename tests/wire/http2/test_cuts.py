"""The framing in C: it does not matter how bytes are cut into pieces."""

import pytest

from tests.wire.http2 import frames as f
from tests.wire.http2.script import OPENED, Play, fed

SESSION = (
    OPENED
    + f.headers(3, b"part ", 0)
    + f.frame(f.CONTINUATION, 3, b"two", f.END_HEADERS)
    + f.data(1, b"!headers 1", b"", b"!send 1 3", b"next")
    + f.frame(f.DATA, 3, f.padded(f.prefixed(b"padded")[:8], 7), f.PADDED)
    + f.frame(f.PING, 0, bytes(8))
    + f.frame(f.DATA, 3, f.padded(f.prefixed(b"padded")[8:], 0), f.PADDED | f.END_STREAM)
    + f.settings(initial_window_size=100, unknown=3)
    + f.frame(f.PRIORITY, 3, bytes(5))
    + f.data(1, b"!trailers 3", b"!pause 1", b"!send 1 2", b"last")
    + f.headers(5, flags=f.END_HEADERS | f.END_STREAM)
    + f.window_update(1, 9)
    + f.rst_stream(5)
    + f.headers(7)
    + f.data(7, b"!resume 1", b"!reset 1 8", b"x" * 30)
    + f.frame(f.DATA, 7, f.prefixed(b"y", 1))
)


@pytest.mark.parametrize("way", ["cuts", "pieces"])
def test_it_does_not_matter_where_bytes_are_cut(play: Play, way: str) -> None:
    whole = play("server", fed(SESSION))
    cut = play("server", f"{way} {SESSION.hex()}")
    events = [line for line in whole if not line.startswith(">")]
    assert len(events) == 20
    assert [line for line in cut if not line.startswith(">")] == events
    assert [line for line in cut if line.startswith(">")] == [
        line for line in whole if line.startswith(">")
    ]

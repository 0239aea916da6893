"""The words of the scripts that `replay` plays, and of what it says."""

from collections.abc import Callable

from tests.wire.http2 import frames as f

# Plays a script as "server" or "client", with limits by name; what was said but for what every
# connection says first.
Play = Callable[..., list[str]]

PROTOCOL_ERROR, INTERNAL, FLOW_CONTROL, CLOSED = 1, 2, 3, 5
FRAME_SIZE, REFUSED, CANCEL, CALM = 6, 7, 8, 11
ACK = "> SETTINGS 0 flags 1"
FROM_CLIENT = f.PREFACE + f.settings()
OPENED = FROM_CLIENT + f.headers(1)
FROM_SERVER = f.settings()


def fed(*parts: bytes) -> str:
    """The peer sends this."""
    return f"< {b''.join(parts).hex()}"


def reset(stream: int, code: int) -> str:
    """A stream is reset by us."""
    return f"> RST_STREAM {stream} flags 0 {code}"


def goaway(last: int, code: int) -> str:
    """We go away."""
    return f"> GOAWAY 0 flags 0 last {last} code {code}"

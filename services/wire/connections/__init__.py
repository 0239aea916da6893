"""Connections that carry many gRPC streams, in C, for the event loop's own thread: the framing of
HTTP/2 with what it tells as lists, and what reads their header blocks.

Without a compiler at install time, and on systems other than Linux, AVAILABLE is false.
"""

from enum import IntEnum

from services.wire.native_streams import ENABLED

try:
    from services.wire.connections import _connections as _connections
except ImportError:  # no compiler was there at install time, or the system is another
    _connections = None  # type: ignore[assignment]
else:
    from services.wire.connections._connections import Connection as Connection

AVAILABLE = ENABLED and _connections is not None


class Kind(IntEnum):
    """What is told of a stream; the numbers are connection_type.c's.

    TRAILERS are headers that end the stream; REMOTE_ENDED comes behind them, and behind the last
    message where there are none. COMPRESSED is a message that is compressed, to a server alone.
    After RESET nothing more is told of a stream, and nothing can be sent on it.
    """

    HEADERS = 0
    TRAILERS = 1
    MESSAGE = 2
    COMPRESSED = 3
    REMOTE_ENDED = 4
    RESET = 5

"""A stream is over when its peer ended it, or the connection broke: then `send` takes nothing, and
what came before can still be taken.
"""

import numpy as np
import numpy.typing as npt

from services.router.peers.entered_frame import EnteredFrame, ExchangeRecord
from services.wire.tls import Context

class Stream:
    """A connection with one gRPC stream over a connected, non-blocking socket, which it takes over
    even where it raises MemoryError.
    """

    def __init__(
        self,
        fd: int,
        header_block: bytes,
        max_message_bytes: int,
        tls: Context | None = None,
        host: str | None = None,
        /,
    ) -> None:
        """Over `tls` the server's certificate has to be for `host`."""

    @property
    def has_news(self) -> bool:
        """Whether there are messages or headers to take, or it is over."""
    @property
    def is_over(self) -> bool: ...
    @property
    def is_clear(self) -> bool:
        """Whether `send` would take a message."""
    @property
    def is_free(self) -> bool:
        """Whether an exchange may send on it: it is clear, and in no other."""
    @property
    def wants_write(self) -> bool:
        """Whether to `flush` when the socket can be written to."""
    @property
    def peer(self) -> str | None:
        """Whom the service's certificate names, as `verified` reads it, once the handshake is
        over.
        """
    @property
    def reset_code(self) -> int | None:
        """With which the peer gave the stream up; None where it did not."""
    def receive(self) -> list[tuple[bytes, int]]:
        """Read what has come; the messages, and when each arrived, in nanoseconds of the monotonic
        clock.
        """
    def take_headers(self) -> list[tuple[bytes, int]]:
        """The header blocks that came since the last time, and whether each ends the stream."""
    def send(self, message: bytes, /) -> bool:
        """Send a message, unless one before it still waits; whether it was taken."""
    def flush(self) -> None: ...
    def fileno(self) -> int:
        """-1 when it is closed."""
    def why(self) -> str:
        """Why it is over, where the service said nothing of it; for a log."""
    def close(self) -> None: ...

class Exchange:
    """Of one layer at a time, from `share_out` to `sum_replies` or `give_up`; it keeps its memory
    for the next.
    """

def share_out(
    *,
    exchange: Exchange,
    parts: npt.NDArray[np.int64],
    owners: npt.NDArray[np.int64],
    experts: npt.NDArray[np.int64] | None,
    num_pairs: int,
    num_parts: int,
    top_k: int,
) -> list[tuple[int, int, int, int]]:
    """Sort the flat pairs by the owner of their part. The service of each share, -1 for nobody, and
    how many pairs, rows and experts it has. Raises IndexError, ValueError for what does not fit.
    """

def send_frames(
    *,
    exchange: Exchange,
    frames: list[EnteredFrame],
    traceparents: list[str] | None,
    requests: npt.NDArray[np.int64],
    rows: int,
    row_bytes: int,
    layer: int,
    element_type: int,
    checksums: bool,
) -> None:
    """Send each share's frame; the exchange takes what comes on their connections from here on."""

def await_replies(*, exchange: Exchange, loop_descriptor: int, until_nanos: int) -> int:
    """Wait for the replies; why it is over, as exchange.h has it."""

def records(exchange: Exchange, /) -> list[ExchangeRecord]:
    """What is known of each frame."""

def sum_replies(
    *,
    exchange: Exchange,
    weights: int,
    out: int,
    num_tokens: int,
    width: int,
    dtype: int,
    weights_dtype: int,
    out_dtype: int,
) -> bool:
    """Write the weighted sums; whether all are finite. Only then the streams are let go. Raises
    ValueError unless all is answered.
    """

def give_up(exchange: Exchange, /) -> list[tuple[ExchangeRecord, bytes | None]]:
    """The record of each frame and the rows of its reply, if it has one; the streams are let go."""

"""A stream is over when its peer ended it, or the connection broke: then `send` takes nothing, and
what came before can still be taken.
"""

class Stream:
    """A connection with one gRPC stream over a connected, non-blocking socket, which it takes over
    even where it raises MemoryError.
    """

    def __init__(self, fd: int, header_block: bytes, max_message_bytes: int, /) -> None: ...
    @property
    def has_news(self) -> bool:
        """Whether there are messages or headers to take, or it is over."""
    @property
    def is_over(self) -> bool: ...
    @property
    def is_clear(self) -> bool:
        """Whether `send` would take a message."""
    @property
    def wants_write(self) -> bool:
        """Whether to `flush` when the socket can be written to."""
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
        """Why the connection ended, for a log."""
    def close(self) -> None: ...

"""What is sent on a stream that is not open, or over a connection that is over, is dropped, and
False says so. Ids of streams are odd and go up.
"""

from services.wire.tls import Context

class Decoder:
    """The header blocks of one connection, each to be read exactly once and in their order."""

    def __init__(self, max_list_bytes: int, /) -> None:
        """The bound is of the names and values of a block, each pair with 32 bytes more."""
    def decode(self, header_block: bytes, /) -> tuple[list[tuple[str, str]], bool, bool]:
        """The names and values as they came, whether they are too much, and whether they are UTF-8:
        where they are not as they should be, some are left out. Raises ValueError for a block that
        is none; later ones cannot be read then.
        """

class Connection:
    """HTTP/2 over a connected, non-blocking socket, which it takes over even where it raises
    MemoryError; the client opens streams, the server answers them.

    Nothing is written but by `flush`: what is sent in one turn of the loop goes out together.
    """

    def __init__(
        self,
        fd: int,
        is_server: bool,
        max_message_bytes: int,
        max_streams: int,
        max_unsent_bytes: int,
        max_held_bytes: int,
        tls: Context | None = None,
        host: str | None = None,
        /,
    ) -> None:
        """`max_streams` is of what a server's peer has open, `max_unsent_bytes` of the connection:
        messages that a peer does not take. So is `max_held_bytes`: what came of messages that are
        not whole, or are kept on paused streams, or are counted by `count_held`. A stream for which
        more would have to be held is reset; one message of any size is always taken. Over `tls`
        the server's certificate has to be for `host`; the handshake goes on by `receive` and
        `flush`, and until it is over nothing else is written.
        """
    def open(self, header_block: bytes, /) -> int:
        """A client's new stream: its id; 0 where the peer takes no more now, or none ever."""
    def receive(self) -> list[tuple[int, int, bytes, int]]:
        """Read what has come: the stream's id, the Kind, the header block or the message, and when
        it arrived, in nanoseconds of the monotonic clock; of RESET, the code instead.

        A connection that ended first tells of a RESET of each stream. Raises MemoryError, and then
        it is closed.
        """
    def send(self, stream: int, message: bytes, /) -> bool:
        """Send a message. False also where the connection's unsent bytes would be too many."""
    def send_headers(self, stream: int, header_block: bytes, ends_stream: bool, /) -> bool:
        """Send headers; where they end the stream they go after all messages, and the server is
        told no more of it.
        """
    def finish(self, stream: int, /) -> bool:
        """End the client's side of the stream, after all messages."""
    def reset(self, stream: int, code: int, /) -> bool:
        """Give the stream up; nothing more is told of it."""
    def pause(self, stream: int, /) -> None:
        """Have no more told of the stream's messages and its end, and the peer slowed down; what
        was told already is not taken back.
        """
    def resume(self, stream: int, most: int, /) -> list[tuple[int, int, bytes, int]]:
        """Go on: what was kept meanwhile, as `receive` has it. Where those are `most` messages, the
        stream is paused again behind them.
        """
    def held_bytes(self, stream: int, /) -> int:
        """What came of the stream's messages and was not told."""
    def all_held_bytes(self) -> int:
        """Of the connection; what `max_held_bytes` bounds."""
    def late(self, before_nanos: int, /) -> list[int]:
        """The streams of which a message has been coming since before then, in nanoseconds of the
        monotonic clock, and is not whole; paused ones are not. 0 among them is a header block, or a
        frame, of any.
        """
    def count_held(self, change: int, /) -> bool:
        """Count bytes that were told and are kept, or no longer, as held. Whether that is within
        the bound.
        """
    def unsent_bytes(self, stream: int, /) -> int:
        """Of the stream's messages that the socket or the peer's windows have not taken yet."""
    def ping(self) -> None:
        """Ask the peer for a sign of life. It makes the socket readable, and nothing is told of
        it.
        """
    def all_unsent_bytes(self) -> int:
        """Of the connection; what `max_unsent_bytes` bounds."""
    def goaway(self, code: int, /) -> None:
        """Tell the peer to open no more streams; those that are open go on."""
    def flush(self) -> bool:
        """Write what was sent, as far as the socket and the peer take it; False where the
        connection is over, and `receive` then tells its streams.
        """
    def fileno(self) -> int:
        """-1 when it is closed."""
    def why(self) -> str:
        """Why it is over, for a log."""
    def close(self) -> None:
        """Close the socket, at once and without a word."""
    @property
    def is_over(self) -> bool: ...
    @property
    def has_begun(self) -> bool:
        """Whether the peer has said that it speaks HTTP/2."""
    @property
    def is_secured(self) -> bool:
        """Whether nothing is left of a handshake: the peer is who it should be."""
    @property
    def peer(self) -> str | None:
        """Whom the peer's certificate names, as `verified` reads it, once it is secured."""
    @property
    def wants_write(self) -> bool:
        """Whether to `flush`: after a `flush` that the socket did not take whole, when it can be
        written to.
        """
    @property
    def is_drained(self) -> bool:
        """Whether the socket has taken everything."""

"""Bounds on what a peer may cost a server."""

from dataclasses import dataclass

from services.runtime.server import MAX_MESSAGE_BYTES


@dataclass(frozen=True)
class Limits:
    """Of one server; those of a call and of a connection are each one's own."""

    # Of a request, and of a response.
    max_request_bytes: int
    max_response_bytes: int = MAX_MESSAGE_BYTES
    max_connections: int = 1024
    # The most of them that one host may have.
    max_host_connections: int = 512
    # Calls of a connection at a time.
    max_streams: int = 4096
    # What a connection may have unsent: all of it, and beyond which a call waits for its reader.
    max_unsent_bytes: int = 64 << 20
    max_unsent_call_bytes: int = 64 << 10
    # What a call sends in one go before others get their turn.
    max_messages_in_turn: int = 32
    # Requests that wait for their handler; beyond either the peer is slowed down.
    max_waiting_requests: int = 64
    max_waiting_request_bytes: int = 256 << 10
    # What is read for all connections in one turn of the loop, before whatever else is ready gets
    # its own. Calls that begin, go on or end then have tasks that take many times as long.
    turn_seconds: float = 0.002
    max_turn_bytes: int = 16 << 10
    max_turn_calls: int = 16
    # Requests that came in part, or that no handler has taken: of a connection, and of all.
    max_held_bytes: int = 64 << 20
    max_all_held_bytes: int = 256 << 20
    # For a peer that connects and does not speak HTTP/2.
    preface_seconds: float = 20.0
    # For a request, from its first byte, or from the beginning of a call that has but one; for a
    # header block too.
    request_seconds: float = 60.0
    # For a connection without a call.
    idle_seconds: float = 300.0
    # For what the peers have still to read when the server stops.
    last_words_seconds: float = 0.5

    @property
    def of_wire(self) -> tuple[int, int, int, int]:
        """Those that a connection in C keeps, as it takes them."""
        of_messages = self.max_request_bytes, self.max_streams
        return (*of_messages, self.max_unsent_bytes, self.max_held_bytes)

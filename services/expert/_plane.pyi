"""The native data plane: a thread that serves streams of frames without the interpreter's lock."""

from services.wire.tls import Context

class Plane:
    """Serves from its making until `stop`, or until it has drained.

    Addresses come as integers; `kept` keeps what they point into. `listener` is a
    listening socket that does not block, the plane's own from then on, also where OSError is
    raised. `slots` is [num_layers, num_experts] of int64, negative where there is no expert;
    `experts` is what the kernels describe, and `element_type` is their dtype, as frames say it.
    Experts of which `intermediate` is 0 make zeros, and hold the thread for `base_nanos` for a
    batch, `expert_nanos` for each expert in it and `pair_nanos` for each pair.
    """

    def __new__(
        cls,
        *,
        kept: object,
        tls: Context | None,
        listener: int,
        slots: int,
        num_layers: int,
        num_experts: int,
        experts: object,
        base_nanos: int,
        expert_nanos: int,
        pair_nanos: int,
        element_type: int,
        row_bytes: int,
        most_pairs: float,
        max_frame_bytes: int,
        max_message_bytes: int,
        max_silent_nanos: int,
        window_pairs: int,
        max_waiting_pairs: int,
    ) -> Plane: ...
    def fileno(self) -> int:
        """To be watched: readable while there are events."""

    def events(self) -> list[tuple[int, int, int, bytes]]:
        """What happened since the last call, as handover.h says: kind, number, nanoseconds,
        data.
        """

    def command(self, kind: int, number: int, data: bytes = b"", /) -> None:
        """Has the thread do something, as handover.h says."""

    def take(self, number: int, num_pairs: int, /) -> bool:
        """Counts pairs that were sent on a stream; whether its credit held them."""

    def grant(self, number: int, num_pairs: int, /) -> None:
        """Lets as many pairs be sent on a stream anew."""

    def counts(self) -> tuple[int, int, int, list[int], int]:
        """Frames and pairs computed, frames whose records were lost, batches of each layer, and
        pairs that wait for a batch now.
        """

    def records(
        self,
    ) -> tuple[
        list[tuple[int, int, int, int]],
        list[tuple[str, int, int, int, int, int, int, tuple[int, int, int, int]]],
    ]:
        """What was noted since the last call. Some batches: layer, frames, active experts,
        nanoseconds. Frames of sampled steps: traceparent, layer, rows, pairs, bytes, frames of the
        batch, when it ended in nanoseconds since 1970, timings.
        """

    def secure(self, tls: Context | None, /) -> None:
        """Uses `tls` for connections that come from now on."""

    def stop(self) -> None:
        """Ends the thread, and what it serves with it; once it has ended, nothing."""

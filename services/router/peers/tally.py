"""Counts what came of the frames to one service, for whoever watches."""

from statistics import median_low

REMEMBERED = 128  # round trips


class Tally:
    """Sums since the router began, over all connections, and the latest wire times."""

    __slots__ = ("_wires", "compute_nanos", "frames", "pairs", "queue_nanos")

    def __init__(self) -> None:
        self.frames = self.pairs = self.queue_nanos = self.compute_nanos = 0
        self._wires = [0] * REMEMBERED

    def add(
        self, num_pairs: int, round_trip_nanos: int, queue_nanos: int, compute_nanos: int
    ) -> None:
        """A frame of so many pairs was answered; see `Pace.end`."""
        wire = round_trip_nanos - queue_nanos - compute_nanos
        self._wires[self.frames % REMEMBERED] = wire if wire > 0 else 0
        self.frames += 1
        self.pairs += num_pairs
        self.queue_nanos += queue_nanos
        self.compute_nanos += compute_nanos

    @property
    def median_wire_nanos(self) -> int:
        """Of the latest round trips, without the service's own time; 0 before any."""
        latest = self._wires[: self.frames]
        return median_low(latest) if latest else 0

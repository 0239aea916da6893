"""When a reply arrived, though the loop read it only later because it was computing
another lane.
"""

from services.runtime.mean_by_size import MeanBySize

# Between two stretches of computing this far apart the loop had nothing to do but to pass from one
# to the other.
PASSING_NANOS = 500_000


class Busy:
    """The latest stretch in which the loop computed steps without a pause, in nanoseconds of the
    monotonic clock.
    """

    def __init__(self) -> None:
        self.began = self.ended = 0

    def extend(self, began: int, ended: int) -> None:
        """Some step was computed from `began` to `ended`."""
        if began - self.ended > PASSING_NANOS:
            self.began = began
        self.ended = ended


# A process has one event loop, and all of its lanes compute there.
LOOP = Busy()


class ReplyArrivals:
    """Dates replies of one service.

    A reply read by an idle loop arrived at that moment, and teaches the wire time for its size. A
    reply read right after a compute stretch actually arrived earlier: at send time + the service's
    own durations + the learnt wire time. So waiting for another lane is not mistaken for
    communication.
    """

    def __init__(self, busy: Busy = LOOP, smoothing: float = 0.1) -> None:
        self._busy = busy
        self._wire_nanos = MeanBySize(smoothing)

    def date(self, *, sent: int, read: int, server_nanos: int, num_bytes: int) -> int:
        """When a reply of `num_bytes` arrived that was asked for at `sent` and read at `read`."""
        served = sent + server_nanos
        if read - self._busy.ended > PASSING_NANOS:
            self._wire_nanos.add(num_bytes, max(0, read - served))
            return read
        wire = self._wire_nanos.mean(num_bytes)
        if wire is None:
            return read
        ready = max(served + int(wire), self._busy.began)
        return ready if ready < self._busy.ended else read

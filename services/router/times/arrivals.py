"""When a reply arrived, though the loop read it only later because it was computing
another lane.
"""

# Between two stretches of computing this far apart the loop had nothing to do but to pass from one
# to the other.
PASSING_NANOS = 500_000


class Busy:
    """The latest stretch in which the loop computed steps without a pause, in nanoseconds of the
    monotonic clock.
    """

    def __init__(self) -> None:
        self.began = self.ended = 0

    def note(self, began: int, ended: int) -> None:
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
        self._smoothing = smoothing
        self._wire_nanos: dict[int, float] = {}  # by the bits of the number of bytes

    def date(self, *, sent: int, read: int, server_nanos: int, num_bytes: int) -> int:
        """When a reply of `num_bytes` arrived that was asked for at `sent` and read at `read`."""
        size, served = num_bytes.bit_length(), sent + server_nanos
        wire = self._wire_nanos.get(size)
        if read - self._busy.ended > PASSING_NANOS:
            measured = max(0, read - served)
            self._wire_nanos[size] = (
                measured if wire is None else wire + self._smoothing * (measured - wire)
            )
            return read
        if wire is None:
            return read
        ready = max(served + int(wire), self._busy.began)
        return ready if ready < self._busy.ended else read

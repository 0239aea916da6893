"""Where a sequence's time goes: the parts of a step, measured one after the other, and their sums
by phase.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from operator import attrgetter

from services.router.times.blame import Blame


@dataclass
class Parts:
    """Nanoseconds by part of the critical path; what they mean stands in common.proto's
    PhaseReceipt.
    """

    step_wait: int = 0
    dense: int = 0
    gate: int = 0
    encode: int = 0
    wire: int = 0
    expert_queue: int = 0
    expert_compute: int = 0
    straggler_wait: int = 0
    lane_wait: int = 0
    combine: int = 0
    sampling: int = 0

    def add(self, other: "Parts") -> None:
        # Once for each sequence of each step, where setattr of each field takes several times as
        # long.
        mine, theirs = self.__dict__, other.__dict__
        for part, nanos in theirs.items():
            mine[part] += nanos

    def total(self) -> int:
        return sum(self.__dict__.values())


@dataclass(slots=True)
class ReplyTimes:
    """One service's answer to a layer, in nanoseconds; `sent` and `arrived` by this process's
    monotonic clock.

    `server_compute` is the service's own time but for the queue: `server_decode` of it to read the
    frame.
    """

    service: str
    sent: int
    arrived: int
    server_queue: int
    server_compute: int
    server_decode: int = 0

    @property
    def wire(self) -> int:
        """Round trip less the service's own durations: no clock is shared."""
        return max(0, self.arrived - self.sent - self.server_queue - self.server_compute)


_arrival = attrgetter("arrived")


class StepClock:
    """Charges a step's time to its parts without a gap: each reading ends one part and begins the
    next.
    """

    def __init__(self) -> None:
        self.parts = Parts()
        self.stragglers: Counter[str] = Counter()  # layers by the service that cost most of each
        self.straggler_nanos: Counter[str] = Counter()  # what it cost them
        self.retries: Counter[tuple[str, str]] = (
            Counter()
        )  # frames sent again: (service that failed, reason)
        # Copies of frames that were late: (service that was, whether the copy was quicker).
        self.hedges: Counter[tuple[str, bool]] = Counter()
        self.started = self._mark = time.perf_counter_ns()

    @property
    def ended(self) -> int:
        """When the latest part ended: all of them lie without a gap between the start and here."""
        return self._mark

    @staticmethod
    def now() -> int:
        """The clock that every time of a step is read from, in nanoseconds."""
        return time.perf_counter_ns()

    def charge(self, part: str, *, nanos_ago: int = 0) -> int:
        """Charge the time since the last reading to `part`, which ended so long ago, but not before
        that reading; returns its end.
        """
        now = time.perf_counter_ns() - nanos_ago
        self.parts.__dict__[part] += now - self._mark
        self._mark = now
        return now

    def charge_gather(self, replies: list[ReplyTimes], *, has_losses: bool = False) -> int:
        """Charge the wait for `replies`, which ends now; returns now.

        Up to the first reply the time is that service's wire, queue and compute, in their
        proportion where own work hid a part of them; from there to the last reply it is straggler
        wait; after that a reply lay ready: lane wait. With losses, of which no reply came, it is
        straggler wait until now.
        """
        now, waited_from = time.perf_counter_ns(), self._mark
        self._mark = now
        first_seen = last_seen = waited_from
        if replies:
            first, last = min(replies, key=_arrival), max(replies, key=_arrival)
            self._charge_first(first, max(0, first.arrived - waited_from))
            first_seen, last_seen = max(first.arrived, waited_from), max(last.arrived, waited_from)
        if has_losses:
            last_seen = now
        self.parts.straggler_wait += last_seen - first_seen
        self.parts.lane_wait += now - last_seen
        return now

    def note_straggler(self, blamed: Blame | None) -> None:
        """Whom a layer that is over waited for; counted where there is such a service."""
        if blamed is not None and blamed.service:
            self.stragglers[blamed.service] += 1
            self.straggler_nanos[blamed.service] += blamed.nanos

    def _charge_first(self, first: ReplyTimes, visible: int) -> None:
        whole = first.wire + first.server_queue + first.server_compute
        if not whole:
            self.parts.wire += visible
            return
        queue = visible * first.server_queue // whole
        compute = visible * first.server_compute // whole
        self.parts.expert_queue += queue
        self.parts.expert_compute += compute
        self.parts.wire += visible - queue - compute


@dataclass
class PhaseTotals:
    """The steps of one phase."""

    parts: Parts = field(default_factory=Parts)
    steps: int = 0


class SequenceReceipt:
    """The router's share of one sequence's receipt, from its receipt to its end."""

    def __init__(self) -> None:
        self.prefill = PhaseTotals()
        self.decode = PhaseTotals()
        self.stragglers: Counter[str] = Counter()
        self.straggler_nanos: Counter[str] = Counter()
        self.retries = 0
        self.hedges = 0
        self.received = self._mark = time.perf_counter_ns()

    def enter_step(self, clock: StepClock, *, prefill: bool) -> None:
        """Charge the wait from the last step, or from the receipt, to the start of this one."""
        self._phase(prefill).parts.step_wait += max(0, clock.started - self._mark)

    def leave_step(self, clock: StepClock, *, prefill: bool) -> None:
        """Add the parts of a step that has just ended."""
        phase = self._phase(prefill)
        phase.parts.add(clock.parts)
        phase.steps += 1
        for service, layers in clock.stragglers.items():
            self.stragglers[service] += layers
            self.straggler_nanos[service] += clock.straggler_nanos[service]
        self.retries += clock.retries.total()
        self.hedges += clock.hedges.total()
        self._mark = clock.ended

    @property
    def slowest_service(self) -> tuple[str, int] | None:
        """Whose delays cost the layers most time, and of how many it was the straggler."""
        for service, _ in self.straggler_nanos.most_common(1):
            return service, self.stragglers[service]
        return None

    def elapsed(self) -> int:
        """Nanoseconds since the receipt of the sequence."""
        return time.perf_counter_ns() - self.received

    def _phase(self, prefill: bool) -> PhaseTotals:
        return self.prefill if prefill else self.decode

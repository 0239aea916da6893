"""How late the client itself was: a load generator that cannot keep up measures itself."""

import asyncio
import time

from services.cli.bench.sample import NANOS_PER_SECOND

INTERVAL_SECONDS = 0.05
# The selector that sleeps for the event loop rounds up to whole milliseconds; that is no lag.
TIMER_SECONDS = 0.001
MAX_LATE_SHARE = 0.05


class ClientLag:
    """Watches the event loop and the CPU time of this process while a load runs."""

    def __init__(self) -> None:
        self.late_seconds: list[float] = []
        self.began_nanos = self.ended_nanos = time.monotonic_ns()
        self._cpu_nanos = time.process_time_ns()

    @property
    def seconds(self) -> float:
        """How long it was watched."""
        return (self.ended_nanos - self.began_nanos) / NANOS_PER_SECOND

    @property
    def late_share(self) -> float:
        """The share of the time in which whoever was ready had to wait for the loop."""
        return sum(self.late_seconds) / self.seconds if self.seconds else 0.0

    @property
    def cpu_seconds(self) -> float:
        """CPU time that this process took."""
        return self._cpu_nanos / NANOS_PER_SECOND

    def end(self) -> None:
        """Stop the clocks; to be called once."""
        self.ended_nanos = time.monotonic_ns()
        self._cpu_nanos = time.process_time_ns() - self._cpu_nanos

    async def watch(self) -> None:
        """Note, until cancelled, how much later than asked for the loop wakes a sleeper."""
        while True:
            asked = time.monotonic() + INTERVAL_SECONDS + TIMER_SECONDS
            await asyncio.sleep(INTERVAL_SECONDS)
            self.late_seconds.append(max(0.0, time.monotonic() - asked))

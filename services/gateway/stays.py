"""What a request's stays at routers took that were cut short: it goes on elsewhere, and its receipt
has all of them.
"""

from dataclasses import dataclass, field

from opentelemetry import metrics

from moesaic.v1 import common_pb2, router_pb2

RESUMPTIONS = "moesaic.gateway.resumptions"
# Whatever routers say is summed: no field takes more.
MAX_NUMBER = (1 << 64) - 1
MAX_COUNT = (1 << 32) - 1
# What a router counts beside its phases.
COUNTERS = ("retries", "hedges")

_resumptions = metrics.get_meter(__name__).create_counter(
    RESUMPTIONS,
    unit="{request}",
    description="requests that went on at another router, or at their own when it was back",
)


def count_from_zero() -> None:
    """Have the count be there before the first of them: rates miss a first one that is not."""
    _resumptions.add(0)


@dataclass
class EarlierStays:
    """The sum of them, in nanoseconds of the gateway's clock but for the routers' own parts."""

    num_resumptions: int = 0
    # Before each of them.
    queue_nanos: int = 0
    # At routers that were lost, and their receipts with them.
    lost_nanos: int = 0
    # At routers that stopped and said what they had done, less their own time.
    call_nanos: int = 0
    overflowed_pairs: int = 0
    parts: common_pb2.LatencyReceipt = field(default_factory=common_pb2.LatencyReceipt)

    def add(
        self, *, queue_nanos: int, call_nanos: int, finish: router_pb2.SequenceFinish | None
    ) -> None:
        """One more is over; without a `finish` its router was lost."""
        self.queue_nanos += queue_nanos
        if finish is None:
            self.lost_nanos += call_nanos
            return
        self.call_nanos += max(0, call_nanos - finish.router_nanos)
        self.overflowed_pairs += finish.overflowed_pairs
        add_parts(self.parts, finish.receipt)

    def overflowed_with(self, latest: int) -> int:
        """Pairs that overflowed in these stays and in the latest."""
        return min(latest + self.overflowed_pairs, MAX_NUMBER)

    def resume(self) -> None:
        """The request goes on at a router."""
        self.num_resumptions += 1
        _resumptions.add(1)


def add_parts(receipt: common_pb2.LatencyReceipt, other: common_pb2.LatencyReceipt) -> None:
    """Add to a receipt the router's parts of another."""
    for mine, theirs in ((receipt.prefill, other.prefill), (receipt.decode, other.decode)):
        for part, value in theirs.ListFields():
            setattr(mine, part.name, min(getattr(mine, part.name) + value, MAX_NUMBER))
    for counter in COUNTERS:
        total = getattr(receipt, counter) + getattr(other, counter)
        setattr(receipt, counter, min(total, MAX_COUNT))
    if other.slowest_service_layers > receipt.slowest_service_layers:
        receipt.slowest_service = other.slowest_service
        receipt.slowest_service_layers = other.slowest_service_layers

"""Which missing experts are loaded next: those that the requests that wait will need."""

from collections.abc import Sequence, Set
from typing import NamedTuple

from services.router.planning.moves import BATCH_BYTES, MAX_BATCH, batch_size
from services.wire.expert_key import ExpertKey

# Of one load while requests wait for it, or may soon: they wait for the whole, since it is ready as
# a whole.
AWAITED_BYTES = 96 << 20
# Loads are larger where they are over within that time even so, as where files are mapped: what
# each of them costs beside reading is more than that then.
AWAITED_SECONDS, BATCH_SECONDS = 0.1, 0.25


class LastLoad(NamedTuple):
    """So many experts were loaded in so many seconds."""

    num_experts: int
    seconds: float

    def size(self, usual: int, seconds: float) -> int:
        """Of a load that takes so many seconds at this speed, if it is more than usual; a load is
        twice the last at most.
        """
        num_experts = int(self.num_experts * seconds / max(self.seconds, 1e-6))
        return max(usual, min(num_experts, 2 * self.num_experts, MAX_BATCH))


NO_LOAD = LastLoad(0, 0.0)


def next_batch(
    experts: Sequence[ExpertKey],
    awaited: Set[ExpertKey],
    expert_bytes: int,
    passed_layer: int | None = None,
    last: LastLoad = NO_LOAD,
) -> list[ExpertKey]:
    """What to load next of `experts`; while something is waited for a short load, with no more than
    that if it is much.

    Requests that waited in `passed_layer` last, where that is said, are computing on: the load is
    short as well, and of the layers that come next.
    """
    wanted = awaited & set(experts) if awaited else frozenset()
    if wanted:
        first = min(wanted).layer
    elif passed_layer is not None:
        first = passed_layer + 1
    else:
        return list(experts[: last.size(batch_size(expert_bytes, BATCH_BYTES), BATCH_SECONDS)])
    usual = last.size(batch_size(expert_bytes, AWAITED_BYTES), AWAITED_SECONDS)
    size = min(MAX_BATCH, max(len(wanted), usual))
    return in_order_of_need(experts, wanted, first)[:size]


def in_order_of_need(
    experts: Sequence[ExpertKey], wanted: Set[ExpertKey], first_layer: int
) -> list[ExpertKey]:
    """First what is wanted, then layer by layer from the first on, since that comes next."""
    num_layers = 1 + max(key.layer for key in experts)
    return sorted(
        experts,
        key=lambda key: (key not in wanted, (key.layer - first_layer) % num_layers, key.expert),
    )

"""Which missing experts are loaded next: those that the requests that wait will need."""

from collections.abc import Sequence, Set

from services.router.planning.moves import MAX_BATCH, batch_size
from services.wire.expert_key import ExpertKey

# Of one load while requests wait for it, or may soon: they wait for the whole, since it is ready as
# a whole.
AWAITED_BYTES = 96 << 20


def next_batch(
    experts: Sequence[ExpertKey],
    awaited: Set[ExpertKey],
    expert_bytes: int,
    passed_layer: int | None = None,
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
        return list(experts[: batch_size(expert_bytes)])
    size = min(MAX_BATCH, max(len(wanted), batch_size(expert_bytes, AWAITED_BYTES)))
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

"""Which missing experts are loaded next: those that the requests that wait will need."""

from collections.abc import Sequence, Set

from services.router.planning.moves import MAX_BATCH, batch_size
from services.wire.expert_key import ExpertKey

# Of one load while requests wait for it: they wait for the whole, since it is ready as a whole.
AWAITED_BYTES = 96 << 20


def next_batch(
    experts: Sequence[ExpertKey], awaited: Set[ExpertKey], expert_bytes: int
) -> list[ExpertKey]:
    """What to load next of `experts`; while something is waited for a short load, with no more than
    that if it is much.
    """
    wanted = awaited & set(experts) if awaited else frozenset()
    if not wanted:
        return list(experts[: batch_size(expert_bytes)])
    size = min(MAX_BATCH, max(len(wanted), batch_size(expert_bytes, AWAITED_BYTES)))
    return in_order_of_need(experts, wanted)[:size]


def in_order_of_need(experts: Sequence[ExpertKey], wanted: Set[ExpertKey]) -> list[ExpertKey]:
    """First what is wanted, of which there is some, then layer by layer from there on, since that
    comes next.
    """
    first, num_layers = min(wanted).layer, 1 + max(key.layer for key in experts)
    return sorted(
        experts, key=lambda key: (key not in wanted, (key.layer - first) % num_layers, key.expert)
    )

"""The order in which missing experts are loaded: as the requests that wait will need them."""

from collections.abc import Sequence, Set

from services.wire.expert_key import ExpertKey


def in_order_of_need(experts: Sequence[ExpertKey], awaited: Set[ExpertKey]) -> list[ExpertKey]:
    """First what is waited for, then layer by layer from there on, since that comes next; else as
    they are.
    """
    wanted = awaited & set(experts) if awaited else frozenset()
    if not wanted:
        return list(experts)
    first, num_layers = min(wanted).layer, 1 + max(key.layer for key in experts)
    return sorted(
        experts, key=lambda key: (key not in wanted, (key.layer - first) % num_layers, key.expert)
    )
